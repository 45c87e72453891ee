"""Attention to the visual tokens, reduced to column statistics while the model prefills.

The queries and keys of every decoder layer are caught as the layer projects them; a few query rows at a time become
attention and are reduced at once, before the next layer runs. The largest map in memory is heads x chunk x length,
whatever the number of samples, and sdpa or flash attention stays on in the model. The kinds of statistics are those of
analysis/attention.py.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from pruning.models.families import family_of
from pruning.models.projections import Projections, Watch, attention_rows, watch


@torch.inference_mode()
def prefill_statistics(model: nn.Module, inputs: Mapping[str, Tensor], chunk: int = 64) -> dict[str, Tensor]:
    """Prefill one batch and return the column statistics of every layer.

    Args:
        model: a supported vision-language model with any attention implementation; hooks are gone when this returns.
        inputs: what the processor gives, left-padded, one image a prompt.
        chunk: query rows held as attention at a time.
    Returns:
        each kind of `KINDS` as float32 `[B, layers, N]`; `cls` as `[B, 1, N]`.
    Raises:
        ValueError: prompts with several images, with different numbers of visual tokens, or that end in one.
        TypeError: unsupported model.
    """
    family = family_of(model)
    visual_BN = visual_positions(inputs["input_ids"], family.image_token_id)
    mask_BS = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    layers: list[dict[str, Tensor]] = []

    def reduce_layer(watched: Watch) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: object) -> None:
            layers.append(column_statistics(watched.projections, mask_BS, visual_BN, chunk))
            watched.forget()  # frees this layer's queries and keys before the next one runs

        return hook

    with ExitStack() as stack:
        vision = family.watch_vision()
        stack.callback(vision.remove)
        for layer, watched in zip(family.layers, stack.enter_context(watch(family.layers)), strict=True):
            stack.callback(layer.self_attn.register_forward_hook(reduce_layer(watched)).remove)
        model(**inputs, use_cache=False, logits_to_keep=1)
        if len(vision.images) != len(visual_BN):
            raise ValueError(f"one image a prompt is needed, got {len(vision.images)} for {len(visual_BN)} prompts")
        attention_T = vision.attention_HT.mean(0)
        cls_BN = torch.stack([attention_T[image.index_N] for image in vision.images])
    return {kind: torch.stack([layer[kind] for layer in layers], dim=1) for kind in layers[0]} | {
        "cls": cls_BN[:, None]
    }


def visual_positions(input_ids_BS: Tensor, image_token_id: int) -> Tensor:
    """Positions `[B, N]` of the visual tokens; ValueError unless all prompts hold equally many, and end in text."""
    is_visual = input_ids_BS == image_token_id
    counts = is_visual.sum(1)
    if int(counts.min()) != int(counts.max()) or int(counts.min()) == 0:
        raise ValueError(
            f"attention by token index needs the same number of visual tokens in every prompt, got {counts.tolist()}; "
            "resize the images to one size"
        )
    if bool(is_visual[:, -1].any()):
        raise ValueError("a prompt ends in a visual token; ask a question after the image, and pad on the left")
    return is_visual.nonzero()[:, 1].view(len(counts), -1)


def column_statistics(
    projections: Projections, mask_BS: Tensor, visual_BN: Tensor, chunk: int = 64
) -> dict[str, Tensor]:
    """Column statistics over the visual tokens of one decoder layer that has just projected its queries and keys.

    Args:
        projections: the layer's queries and keys.
        mask_BS: True at prompt tokens, False at left padding.
        visual_BN: positions of the visual tokens, ascending; the last prompt token is text.
        chunk: query rows held as attention at a time.
    Returns:
        `image`, `text`, `full`, `last` and `equi_last`, each float32 `[B, N]`.
    """
    queries_BHSd, keys_BGSd = projections.queries(), projections.keys()
    positions_S = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    is_visual_BS = torch.zeros_like(mask_BS).scatter(1, visual_BN, True)
    is_text_BS = mask_BS & (positions_S > visual_BN[:, -1:])
    groups_BQS = torch.stack([is_visual_BS, is_text_BS, mask_BS], dim=1).float()  # the queries of image, text and full

    sums_BQN = torch.zeros(*groups_BQS.shape[:2], visual_BN.shape[1], device=mask_BS.device)
    for rows_C in positions_S.split(chunk):
        rows_BC = rows_C.expand(len(mask_BS), -1)
        attention_BHCS = attention_rows(queries_BHSd[:, :, rows_C], keys_BGSd, mask_BS=mask_BS, rows_BR=rows_BC)
        # The row of a padded query sees nothing and is NaN: it must weigh nothing in the sums.
        attention_BCS = attention_BHCS.mean(1).masked_fill(~mask_BS[:, rows_C, None], 0.0)
        to_visual_BCN = attention_BCS.gather(2, visual_BN[:, None].expand(-1, len(rows_C), -1))
        sums_BQN += groups_BQS[:, :, rows_C] @ to_visual_BCN
    last_BN = to_visual_BCN[:, -1]

    # Queries of each group that stand at or after a visual token, i.e. can see it.
    seeing_BQS = groups_BQS.flip(-1).cumsum(-1).flip(-1)
    seeing_BQN = seeing_BQS.gather(2, visual_BN[:, None].expand(-1, groups_BQS.shape[1], -1))
    image_BN, text_BN, full_BN = (sums_BQN / seeing_BQN).unbind(1)
    unrotated_BHS = projections.rows(positions_S[-1:].expand(len(mask_BS), 1), mask_BS, rope=False)[:, :, 0]
    equi_last_BN = unrotated_BHS.mean(1).gather(1, visual_BN)
    return {"image": image_BN, "text": text_BN, "full": full_BN, "last": last_BN, "equi_last": equi_last_BN}


# VisPruner's analysis looks at decoder layer 1, the last one before FastV's K=2 prunes, and keeps 64 of 576 tokens.
LAYER = 1
