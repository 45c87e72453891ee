"""Which visual tokens of the prompts belong to which image, and the choice of a method for every image on its own."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from pruning.engine.contract import Before, Selected
from pruning.engine.seen import Observed, Prompt
from pruning.engine.state import Call
from pruning.engine.tokens import Choice, Members, Tokens, upload
from pruning.models.family import Family
from pruning.models.vision import Vision


def prompt_tokens(call: Call, family: Family, embeddings_BLD: Tensor, kwargs: dict[str, Any]) -> Tokens:
    """The tokens of the full prompt. Counting them is the one host synchronisation of a prefill.

    Args:
        call: the running call; it learns whether the attention mask is usable.
        kwargs: what the language model is called with.

    Raises:
        ValueError: the prompt has placeholders of images without images, or of videos without videos.
    """
    batch, length, _ = embeddings_BLD.shape
    device = embeddings_BLD.device
    mask = kwargs.get("attention_mask")
    call.odd_mask = mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2)
    if mask is None or call.odd_mask:
        mask_BL = torch.ones(batch, length, dtype=torch.bool, device=device)
    else:
        mask_BL = mask[:, -length:].to(device=device, dtype=torch.bool)
    call.placeholders = {kind: where_BL.to(device) & mask_BL for kind, where_BL in call.placeholders.items()}
    visual_BL = torch.stack([*call.placeholders.values()]).any(dim=0)
    total, *kinds = torch.stack([mask_BL.sum(1), *(where.sum(1) for where in call.placeholders.values())]).tolist()
    for kind, counts in zip(call.placeholders, kinds, strict=True):
        if sum(counts) and kind not in call.given:
            _mismatch(f"{sum(counts)} {kind} placeholders but no {kind}")
    visual = [sum(counts) for counts in zip(*kinds, strict=True)]
    numbers_BL = (visual_BL.cumsum(dim=1) - 1).masked_fill(~visual_BL, -1)
    positions = kwargs.get("position_ids")
    if positions is None:
        positions = torch.arange(length, device=device)[None]
    # Qwen passes text positions in front of the three axes; they only serve packed sequences.
    positions_ABL = positions[None] if positions.ndim == 2 else positions[-3:]
    positions_ABL = positions_ABL.expand(3 if family.mrope else 1, batch, -1)
    text = tuple(every - seen for seen, every in zip(visual, total, strict=True))
    return Tokens(numbers_BL, mask_BL, positions_ABL, positions_ABL[..., -1:] + 1, tuple(visual), text)


def arrange_images(call: Call, vision: Vision, tokens: Tokens) -> int:
    """Put the images that the tower saw in the order of the prompts, and count the rows that stand for one sample.

    `generate` copies the row of each sample for beams, after encoding its images once. With images and videos in one
    batch the order costs a second host synchronisation.

    Raises:
        ValueError: placeholders and visual tokens do not match in number.
    """
    placeholders = sum(tokens.visual)
    if not vision.has_run or placeholders == 0:
        return 1
    vision.settle(len(call.given))
    available = sum(len(image.index_N) for image in vision.images)
    copies = placeholders // available
    if placeholders % available or len(tokens.visual) % copies:
        _mismatch(f"{placeholders} image placeholders, but its images give {available} visual tokens")
    if len(call.given) > 1:
        vision.interleave(call.placeholders["video"][::copies][tokens.visual_BS[::copies]].tolist())
    return copies


def place_images(lengths: Sequence[int], visual: Sequence[int]) -> list[tuple[int, int]]:
    """Row and first visual token of every image, given the tokens of each image and the placeholders of each row.

    Raises:
        ValueError: an image does not end where its row's placeholders do.
    """
    places, images = [], iter(lengths)
    for row, count in enumerate(visual):
        start = 0
        while start < count:
            length = next(images, 0)
            if length == 0 or start + length > count:
                _mismatch(f"{count} image placeholders in row {row}, which are not the visual tokens of whole images")
            places.append((row, start))
            start += length
    return places


def choose_by_image(method: Before, family: Family, vision: Vision, prompt: Prompt, copies: int) -> Choice:
    """The choice of a method that acts before the language model, for every row of the batch.

    Beams of a sample are copies of one row: the choice is made once for each sample and copied.

    Raises:
        ValueError: the method asks for more tokens than an image has, or placeholders and images do not match.
    """
    if not vision.has_run:
        raise ValueError("the method looks at images, but none was encoded inside its context: pass pixel_values there")
    samples = _first_copies(prompt, copies)
    tokens = samples.tokens
    images = vision.images
    places = place_images([len(image.index_N) for image in images], tokens.visual)
    groups: dict[tuple[int, tuple[tuple[int, int], ...]], list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        groups[len(image.index_N), image.rasters].append(number)
    repacks = method.repacks(family)
    for size, _ in groups:  # every complaint about sizes comes before any work
        method.count(size)

    slots_BM = (~tokens.visual_BS).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(tokens.visual)]
    keep_BS, visual = ~tokens.visual_BS, [0] * len(tokens.visual)
    numbers_BS, hidden_BSD, members = tokens.numbers_BS, samples.embeddings_BLD, []
    for (size, _), group in groups.items():
        rows = [places[number][0] for number in group]
        rows_G1 = upload(rows, keep_BS.device)[:, None]
        starts_G1 = upload([places[number][1] for number in group], keep_BS.device)[:, None]
        slots_GN = slots_BM[rows_G1, starts_G1 + torch.arange(size, device=keep_BS.device)]
        selected = method.select(Observed(family, vision, samples, group, rows, slots_GN, repacks))
        if isinstance(selected, Tensor):
            kept_GK, counts = selected, None
        elif isinstance(selected, Selected):
            kept_GK, counts = selected.index_BK, selected.counts
        else:
            kept_GK, counts = selected.slots_BT, selected.counts
            slots_GT = slots_GN.gather(1, kept_GK)
            hidden_BSD = hidden_BSD.index_put((rows_G1, slots_GT), selected.tokens_BTD.to(hidden_BSD.dtype))
            # Merged tokens are numbered after all visual tokens of the sample.
            total_G1 = upload([tokens.visual[row] for row in rows], keep_BS.device)[:, None]
            originals_GT = selected.numbers_BT + starts_G1
            numbers_GT = torch.where(selected.numbers_BT >= 0, originals_GT, total_G1 + starts_G1 + kept_GK)
            numbers_BS = numbers_BS.index_put((rows_G1, slots_GT), numbers_GT)
            members.append(Members(rows, [places[number][1] for number in group], numbers_GT, selected.members_BTN))
        keep_BS = keep_BS.index_put((rows_G1, slots_GN.gather(1, kept_GK)), keep_BS.new_ones(()))
        for row, count in zip(rows, counts or [kept_GK.shape[1]] * len(rows), strict=True):
            visual[row] += count

    merged = hidden_BSD is not samples.embeddings_BLD
    return Choice(
        keep_BS.repeat_interleave(copies, dim=0),
        tuple(count for count in visual for _ in range(copies)),
        _with_visual(prompt, hidden_BSD.repeat_interleave(copies, dim=0)) if merged else None,
        numbers_BS=numbers_BS.repeat_interleave(copies, dim=0) if merged else None,
        members=members,
    )


def _with_visual(prompt: Prompt, hidden_BSD: Tensor) -> Tensor:
    """The visual tokens of `hidden_BSD` in the prompt: without a cache, beams differ in the text behind them."""
    return torch.where(prompt.tokens.visual_BS[..., None], hidden_BSD, prompt.embeddings_BLD)


def _first_copies(prompt: Prompt, copies: int) -> Prompt:
    if copies == 1:
        return prompt
    tokens = prompt.tokens
    first = Tokens(
        tokens.numbers_BS[::copies],
        tokens.mask_BS[::copies],
        tokens.positions_ABS[:, ::copies],
        tokens.next_AB1[:, ::copies],
        tokens.visual[::copies],
        tokens.text[::copies],
    )
    ids_BL = None if prompt.ids_BL is None else prompt.ids_BL[::copies]
    return Prompt(prompt.embeddings_BLD[::copies], first, ids_BL)


def _mismatch(what: str) -> NoReturn:
    raise ValueError(
        f"the prompt has {what}. Build prompt and pixel_values together with the model's processor, and do not "
        "truncate the prompt"
    )
