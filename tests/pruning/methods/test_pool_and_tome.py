"""Pooling, and merging inside the vision tower."""

import pytest
import torch
from torch.nn.functional import normalize

import pruning
from pruning.choosing.merging import Clusters, soft_matching
from pruning.methods.pool import pooling_cells
from tests.tiny_models import IMAGE, tiny_llava


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (6, 4), (1, 30), (5, 7)])
def test_pooling_cells_are_as_many_as_asked_and_of_nearly_one_size(rows, columns):
    for keep in range(1, rows * columns + 1, 3):
        cells, middles = (part.tolist() for part in pooling_cells(keep, rows, columns))
        assert sorted(set(cells)) == list(range(keep)) and middles == sorted(middles)
        assert [cells[middle] for middle in middles] == list(range(keep))
    assert set(pooling_cells(64, 24, 24)[0].bincount().tolist()) == {9}


@torch.no_grad()
def test_pool_averages_a_cell():
    model, inputs = tiny_llava((1,))
    seen = {}
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0]))
    model(**inputs)
    full = seen["hidden"]
    start = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    with pruning.make("pool", keep=9)(model):
        model(**inputs)
    hook.remove()
    grid = full[0, start : start + 36].view(3, 2, 3, 2, -1)
    torch.testing.assert_close(seen["hidden"][0, start : start + 9], grid.mean(dim=(1, 3)).flatten(0, 1))


def test_soft_matching_by_hand():
    # Even tokens 0, 2, 4; odd 1, 3, 5. Token 4 is most like 1, token 0 next like 5, token 2 like none.
    keys = torch.tensor([[[1.0, 0.2, 0], [0, 1, 0], [0.3, 0.3, 0.9], [0, 0, 1], [0, 1, 0.01], [1, 0, 0]]])
    values = torch.tensor([[[6.0], [1.0], [2.0], [3.0], [4.0], [5.0]]])
    matching = soft_matching(keys, 2)
    merged, sizes = matching.merge(values, torch.tensor([[3.0, 1, 1, 1, 1, 1]]))
    assert sizes.tolist() == [[1, 2, 1, 4]]
    assert merged[0, :, 0].tolist() == [2, (1 + 4) / 2, 3, (5 + 3 * 6) / 4]
    assert matching.follow(torch.arange(6)[None]).tolist() == [[3, 1, 0, 2, 1, 3]]
    cls_stays = soft_matching(keys, 2, cls=True).follow(torch.arange(6)[None])[0]
    assert cls_stays[0] == 0 and (cls_stays == 0).sum() == 1


@pytest.mark.parametrize("left", [1, 2, 7, 36])
def test_repeated_merging_keeps_the_weighted_mean(left):
    values, keys = torch.randn(2, 37, 5, dtype=torch.float64), torch.randn(2, 37, 4, dtype=torch.float64)
    clusters = Clusters(values, cls=True)
    merged, _ = clusters.merge(values, keys, 36 - left)
    assert merged.shape == (2, left + 1, 5) and clusters.owners_BN.amax() == left
    for row in range(2):
        for cluster in range(left + 1):
            members = values[row, clusters.owners_BN[row] == cluster]
            assert clusters.sizes_BS[row, cluster] == len(members)
            torch.testing.assert_close(merged[row, cluster], members.mean(dim=0))
        assert (clusters.owners_BN[row] == 0).sum() == 1 and torch.equal(merged[row, 0], values[row, 0])


@torch.no_grad()
def tome_by_hand(tower, pixels, keep):
    """A second, direct writing of the paper: a loop over images, layers and tokens."""
    layers = tower.encoder.layers[:-1]
    outputs = []
    for pixel in pixels:
        x = tower.pre_layrnorm(tower.embeddings(pixel[None]))[0]
        groups = [[index] for index in range(len(x))]
        total = len(x) - 1 - keep
        for number, layer in enumerate(layers):
            attention, normed = layer.self_attn, layer.layer_norm1(x)
            q, k, v = (
                projection(normed).view(len(x), -1, attention.head_dim).transpose(0, 1)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            size = torch.tensor([float(len(group)) for group in groups])
            weights = (q @ k.mT * attention.head_dim**-0.5 + size.log()).softmax(dim=-1)
            x = x + attention.out_proj((weights @ v).transpose(0, 1).flatten(1))
            metric = normalize(k.mean(dim=0), dim=-1)
            candidates = []
            for even in range(2, len(x), 2):
                alike = metric[even] @ metric[1::2].T
                candidates.append((-alike.max().item(), even, 2 * int(alike.argmax()) + 1))
            merges = (number + 1) * total // len(layers) - number * total // len(layers)
            joins = {even: odd for _, even, odd in sorted(candidates)[:merges]}
            new, new_groups = [], []
            for index in [i for i in range(0, len(x), 2) if i not in joins] + list(range(1, len(x), 2)):
                parts = [index] + [even for even, odd in joins.items() if odd == index]
                new.append((x[parts] * size[parts, None]).sum(dim=0) / size[parts].sum())
                new_groups.append([token for part in parts for token in groups[part]])
            x, groups = torch.stack(new), new_groups
            x = x + layer.mlp(layer.layer_norm2(x))
        order = sorted(range(1, len(x)), key=lambda index: min(groups[index]))
        outputs.append((x[order], [min(groups[index]) - 1 for index in order]))
    return outputs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_tome_merges_inside_the_tower(attention):
    model, inputs = tiny_llava((1, 1), attention=attention)
    seen = {}
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0]))
    model(**inputs)  # leaves the hooks that record hidden states: ours must come before them
    with pruning.make("tome", keep=14)(model) as record:
        model(**inputs)
    hook.remove()
    for row, (tokens, first) in enumerate(tome_by_hand(model.model.vision_tower, inputs["pixel_values"], 14)):
        start = int((inputs["input_ids"][row] == IMAGE).nonzero()[0])
        got = seen["hidden"][row, start : start + 14]
        torch.testing.assert_close(got, model.model.multi_modal_projector(tokens), rtol=1e-4, atol=1e-4)
        singles = [number for number in record.kept[row][0].tolist() if number < 36]
        assert set(singles) <= set(first)
