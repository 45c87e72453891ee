"""What enters the layers of a decoder, and where it comes from."""

from pruning.models.families import family_of


def first_and_last(model, inputs):
    """What enters the first and the last layer: hidden states `[B, S, D]` and cosines of the positions `[B, S, d]`."""
    caught = []

    def catch(module, args, kwargs):
        cos = kwargs["position_embeddings"][0]
        caught.append((args[0], cos.expand(len(args[0]), -1, -1)))

    layers = family_of(model).layers
    handles = [layers[index].register_forward_pre_hook(catch, with_kwargs=True) for index in (0, -1)]
    model(**inputs)
    for handle in handles:
        handle.remove()
    return caught


def places(rows, among):
    """For every row the first of `among` behind the last one found that equals it; -1 from where there is none."""
    found, start = [], 0
    equal = (rows[:, None] == among).all(dim=-1)
    for match in equal:
        hits = match[start:].nonzero()[:, 0]
        found.append(start + int(hits[0]) if len(hits) and found[-1:] != [-1] else -1)
        start = found[-1] + 1
    return found
