"""What each patch of a scene shows, in words: targets of the dense vision phase and the decoder's symbolic images.

A patch is described by the sum of the decoder's own word embeddings: shape + colour + size (+ character) of the object
over it, "object" on the patch that holds an object's centre, "background" elsewhere, and where it lies as a share of
("right" - "left") and ("below" - "above"). Training the projector towards these sums puts visual tokens and words in
one space, which is what alignment is for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.testbed.scenes import CANVAS, CHARACTERS, COLOURS, DOT, SHAPES, SIZES, Item, Scene
from experiments.testbed.vocabulary import BACKGROUND, GRID, WORD_ID

NOTHING = WORD_ID["<pad>"]  # stands for "no such word here"
GROUPS: dict[str, tuple[str, ...]] = {
    "shape": (BACKGROUND, *SHAPES, DOT),
    "colour": (BACKGROUND, *COLOURS),
    "size": (BACKGROUND, *SIZES, "tiny"),
    "character": (BACKGROUND, *CHARACTERS),
}
COVERED = 0.22  # share of a patch that an object must cover to be what the patch shows
COVERED_BY_DOT = 0.12


@dataclass(frozen=True)
class PatchWords:
    """What N patches show.

    `words` int64 [N, 4]: ids for shape, colour, size, character, NOTHING where there is none. `centre` bool [N].
    `place` float32 [N, 2] in -1..1: centre of the object, or of the patch itself on background.
    """

    words: np.ndarray
    centre: np.ndarray
    place: np.ndarray


def _overlap(low: float, high: float, grid: int) -> np.ndarray:
    """Share of each of `grid` equal intervals of the canvas that [low, high] covers, [grid]."""
    patch = CANVAS / grid
    edges = np.arange(grid) * patch
    return np.clip(np.minimum(high, edges + patch) - np.maximum(low, edges), 0, None) / patch


def describe(scene: Scene, grid: int = GRID) -> PatchWords:
    """Label every patch of a raster of grid x grid with the object that covers most of it (its bounding box counts)."""
    patch = CANVAS / grid
    best = np.zeros((grid, grid))
    words = np.full((grid, grid, 4), NOTHING)
    words[..., 0] = WORD_ID[BACKGROUND]
    centre = np.zeros((grid, grid), dtype=bool)
    middle = ((np.arange(grid) + 0.5) / grid * 2 - 1).astype(np.float32)
    place = np.stack(np.meshgrid(middle, middle, indexing="xy"), axis=-1)
    for item in (*scene.items, scene.dot):
        left, top, right, bottom = item.box
        share = _overlap(top, bottom, grid)[:, None] * _overlap(left, right, grid)[None, :]
        holds_centre = np.zeros_like(centre)
        holds_centre[int(item.y // patch), int(item.x // patch)] = True
        over = ((share >= (COVERED_BY_DOT if item.shape == DOT else COVERED)) & (share > best)) | holds_centre
        best[over] = share[over]
        words[over] = _words_of(item)
        place[over] = (item.x / CANVAS * 2 - 1, item.y / CANVAS * 2 - 1)
        centre |= holds_centre
    return PatchWords(words.reshape(-1, 4), centre.reshape(-1), place.reshape(-1, 2))


def _words_of(item: Item) -> list[int]:
    character = WORD_ID[item.character] if item.character else NOTHING
    return [WORD_ID[item.shape], WORD_ID[item.colour], WORD_ID[item.size], character]


def embed(words_BN4: Tensor, centre_BN: Tensor, place_BN2: Tensor, table_VD: Tensor) -> Tensor:
    """The described patches as vectors [B, N, D], from the word embedding table."""
    present = (words_BN4 != NOTHING).unsqueeze(-1)
    summed_BND = (table_VD[words_BN4] * present).sum(2)
    across = table_VD[WORD_ID["right"]] - table_VD[WORD_ID["left"]]
    down = table_VD[WORD_ID["below"]] - table_VD[WORD_ID["above"]]
    summed_BND = summed_BND + centre_BN.unsqueeze(-1) * table_VD[WORD_ID["object"]]
    return summed_BND + place_BN2[..., :1] * across + place_BN2[..., 1:] * down


def stack(described: list[PatchWords]) -> tuple[Tensor, Tensor, Tensor]:
    """Batch of descriptions: words [B, N, 4], centre [B, N] and place [B, N, 2]."""
    return (
        torch.from_numpy(np.stack([d.words for d in described])),
        torch.from_numpy(np.stack([d.centre for d in described])),
        torch.from_numpy(np.stack([d.place for d in described])),
    )
