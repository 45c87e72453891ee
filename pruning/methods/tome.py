"""ToMe: similar tokens are merged, a few in every layer of the vision tower."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedModel

from pruning.choosing import costs
from pruning.choosing.base import BeforeLLM, KeepPerImage
from pruning.choosing.merging import Clusters, in_prompt, most_merges, pick_rows
from pruning.choosing.tower_merging import TowerMerging
from pruning.engine.contract import MergedTokens
from pruning.engine.encoded import EncodedImages
from pruning.engine.record import Record
from pruning.engine.seen import Observed
from pruning.engine.tokens import upload
from pruning.models.families import family_of
from pruning.models.sizes import Sizes


@dataclass
class ToMe(KeepPerImage):
    """Bolya et al., arXiv 2210.09461, section 3.

    Bipartite soft matching: tokens are split in turn into two sets, and the r of the first whose attention keys (mean
    over heads) are most similar to one of the second join it, as means weighted by size; [CLS] joins none. r is
    (N - keep) over the number of layers. A token enters at the place of its first patch; positions are re-packed.

    In LLaVA patches are merged inside the vision tower, between attention and MLP of every layer up to the one whose
    features the language model gets, with proportional attention (sdpa or eager attention in the tower). Elsewhere
    (crops that are unpadded, patches merged in fours, features of several layers) the tower is left alone: the same
    matching runs in as many rounds on the tower's output, with the keys of the observed layer, which merge as well.
    `parts`, and so whatever composes methods, has this second form too. The FLOPs the tower saves are not counted.

    Parameters:
        keep: tokens of every image.
    """

    name: ClassVar[str] = "tome"
    label: ClassVar[str] = "ToMe"
    changes_tower: ClassVar[bool] = True

    @contextmanager
    def __call__(self, model: PreTrainedModel, images: EncodedImages | None = None) -> Iterator[Record]:
        if images is not None:
            raise ValueError("tome merges inside the vision tower: pass pixel_values, not images encoded beforehand")
        family = family_of(model)
        if not isinstance(model, LlavaForConditionalGeneration) or not isinstance(
            model.config.vision_feature_layer, int
        ):
            with super().__call__(model) as record:
                yield record
            return
        tower = family.vision_tower
        layers = tower.encoder.layers[: family.vision_layer + 1]
        with (
            TowerMerging(layers, self.keep, cls=hasattr(tower.embeddings, "class_embedding")) as merging,
            BeforeLLM.__call__(InTower(self.keep, positions=self.positions, merging=merging), model) as record,
        ):
            yield record

    def select(self, seen: Observed) -> Tensor | MergedTokens:
        tokens_BSC, keys_BSE = seen.mergeable_BNC, seen.head_keys_BNC
        clusters, rounds = Clusters(tokens_BSC), seen.family.vision_layer + 1
        surplus = seen.num_visual - self.keep
        for done in range(rounds):
            merges = (done + 1) * surplus // rounds - done * surplus // rounds
            tokens_BSC, keys_BSE = clusters.merge(tokens_BSC, keys_BSE, merges)
        return self.in_raster_order(seen, clusters.owners_BN, seen.project(tokens_BSC))

    def in_raster_order(self, seen: Observed, owners_BN: Tensor, tokens_BTD: Tensor | None) -> Tensor | MergedTokens:
        """The merged tokens (None: those that stand at the places of all their patches), ordered by first patch."""
        if self.keep == seen.num_visual:
            return torch.arange(seen.num_visual, device=seen.device).expand(seen.num_images, -1)
        inside_BTN = owners_BN[:, None] == torch.arange(self.keep, device=seen.device)[:, None]
        first_BT, order_BT = inside_BTN.to(torch.uint8).argmax(dim=2).sort(dim=1)
        tokens_BTD = pick_rows(seen.projected_BND, first_BT) if tokens_BTD is None else pick_rows(tokens_BTD, order_BT)
        single_BT = inside_BTN.sum(dim=2).gather(1, order_BT) == 1
        numbers_BT = torch.where(single_BT, first_BT, -1)
        return in_prompt(seen, tokens_BTD, first_BT, numbers_BT, pick_rows(inside_BTN, order_BT))

    def choosing_flops(self, sizes: Sizes) -> int:
        cls = sizes.has_cls
        rounds, flops = sizes.observed_layers, 0
        surplus, tokens = sizes.visual_tokens - self.keep, sizes.visual_tokens + cls
        width = costs.mergeable_width(sizes) + sizes.vision_width // sizes.vision_heads
        for done in range(rounds):
            merges = (done + 1) * surplus // rounds - done * surplus // rounds
            while merges > 0:
                now = min(merges, most_merges(tokens, cls=cls))
                comparing = (tokens - tokens // 2) * (tokens // 2) * (sizes.vision_width // sizes.vision_heads)
                flops += 2 * (comparing + now * (tokens // 2) * width)
                tokens, merges = tokens - now, merges - now
        return flops


@dataclass
class InTower(ToMe):
    """`ToMe` while the tower is being merged."""

    merging: TowerMerging = field(kw_only=True)

    def select(self, seen: Observed) -> Tensor | MergedTokens:
        seen.features_BNC  # noqa: B018 - refuses a [CLS] in the prompt
        owners_BN = self.merging.owners_BN
        return self.in_raster_order(seen, owners_BN[upload(seen.images, owners_BN.device)], None)
