"""SparseVLM: text tokens that matter to the image rate the visual tokens; the first version recycles what it prunes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM, Positions
from pruning.choosing.selection import rank
from pruning.engine.seen import ObservedLayer
from pruning.engine.tokens import Choice, MergeInside, take_tokens, upload
from pruning.models.projections import attention_logits
from pruning.models.sizes import Sizes

# Visual tokens kept of 576 after each stage, by version and the target the authors name them after. Since the first
# layers see all tokens, the true means over 32 layers are higher: 206.5, 145.4, 114.1 and 82.3 in the first version.
TABLES = {
    "v1": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "v2": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
TABLE_TOKENS = 576
RATING_HEADS = 14  # of the second version
RECYCLED = 0.3  # share of the pruned tokens that is merged in the first version
TOKENS_PER_CLUSTER = 10


@dataclass
class SparseVLM(InsideLLM):
    """Zhang et al., arXiv 2410.04417, section 3, and the second version of the authors' code.

    Raters are the text tokens behind the images that the visual tokens are closest to, judged once by the input
    embeddings. After each listed layer the visual tokens stay that get the most of the raters' attention there.

    v1: mean over heads. The better rated 30 % of what is pruned are merged into a tenth as many tokens (clusters by
    DPC-kNN, plain mean), which enter behind the kept visual tokens and compete with them from then on. Positions are
    re-packed, except with mRoPE, where merged tokens stay in the place of their cluster's centre.
    v2: attention is divided by that of a query and a key of all ones, which takes the decay of the rotary embedding
    out, and the mean is over the 14 heads that look at the image most. No merging, original positions.

    Unlike the authors' code it takes batches, padding and several images (text behind the last one counts; where none
    follows, the last token rates) and breaks ties by index instead of by random noise.

    Parameters:
        version: "v1" or "v2".
        layers: 0-based layers after which tokens leave, ascending.
        target: one of the authors' tables, 192, 128, 96 or 64; scaled where there are not 576 visual tokens.
        table: instead, visual tokens kept after each of the layers; merged ones come on top. Where a stage would keep
            all tokens, it keeps all but one, as the authors' code does.
        share: instead, the share of the visual tokens that each stage keeps of what the stage before kept.
    """

    name: ClassVar[str] = "sparsevlm"
    label: ClassVar[str] = "SparseVLM"
    budget_parameter: ClassVar[str | None] = "share"

    version: str = "v1"
    layers: Sequence[int] = (2, 6, 15)
    target: int = 192
    table: Sequence[int] | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("version", self.version, tuple(TABLES))
        checks.ascending_layers("layers", self.layers, minimum=0)
        if self.table is not None and self.share is not None:
            raise ValueError("table and share both say how many tokens stay: give one of them")
        if self.share is not None:
            checks.fraction("share", self.share)
        elif self.table is not None:
            for entry in self.table:
                checks.whole_number("every entry of table", entry)
        checks.one_of("target", str(self.target), tuple(map(str, TABLES[self.version])))
        table = TABLES[self.version][self.target] if self.table is None else self.table
        if self.share is None and len(table) != len(self.layers):
            raise ValueError(f"table={list(table)} and layers={list(self.layers)} differ in number: give one a layer")

    @property
    def positions(self) -> Positions:  # type: ignore[override]
        return "repacked" if self.version == "v1" else "original"

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.layers[-1] + 1 >= num_layers:
            raise ValueError(
                f"layers={list(self.layers)}: after the last of them one of the {num_layers} decoder layers must "
                "follow; lower them"
            )
        plan = self._plan(num_visual)
        return {layer: kept + clusters for layer, (kept, _, clusters) in plan.items()}

    def _plan(self, num_visual: int) -> dict[int, tuple[int, int, int]]:
        """For every layer in front of which tokens leave: tokens kept, candidates for merging, clusters of them."""
        if self.share is not None:
            table = [int(num_visual * self.share ** (stage + 1)) for stage in range(len(self.layers))]
        elif self.table is not None:
            table = list(self.table)
        else:
            table = [kept * num_visual // TABLE_TOKENS for kept in TABLES[self.version][self.target]]
        plan, present = {}, num_visual
        for layer, limit in zip(self.layers, table, strict=True):
            kept = max(0, min(limit, present - 1))
            pruned, candidates, clusters = present - kept, 0, 0
            if self.version == "v1" and pruned:
                candidates = int(pruned * RECYCLED) + 1
                clusters = candidates // TOKENS_PER_CLUSTER + 1
            plan[layer + 1] = kept, candidates, clusters
            present = kept + clusters
        return plan

    def score(self, seen: ObservedLayer) -> Tensor:
        raters_BS = _raters(seen)
        # As many rows as there are text tokens, raters first: how many raters there are stays on the device.
        rows_BR = rank(raters_BS.float())[:, : max(seen.tokens.text)]
        weights_BR = raters_BS.gather(1, rows_BR).float()
        rows_BR = torch.where(weights_BR > 0, rows_BR, seen.last_B1)  # padding attends to nothing
        attention_BHRS = seen.attention(rows_BR)
        if self.version == "v2":
            attention_BHRS = attention_BHRS / _attention_of_ones(seen, rows_BR)
        weights_BR = weights_BR.to(attention_BHRS.dtype)
        rated_BHS = torch.einsum("bhrs,br->bhs", attention_BHRS, weights_BR) / weights_BR.sum(dim=1)[:, None, None]
        if self.version == "v2" and rated_BHS.shape[1] > RATING_HEADS:
            heads_BK = rank(rated_BHS.masked_fill(~seen.visual_BS[:, None], 0).sum(dim=2))[:, :RATING_HEADS]
            rated_BHS = take_tokens(rated_BHS, heads_BK)
        return rated_BHS.mean(dim=1)

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        if self.version == "v2":
            return super().choose(seen, counts)
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, sizes in enumerate(zip(seen.prompt.tokens.visual, seen.tokens.visual, strict=True)):
            if sizes[0]:
                groups[sizes].append(row)
        plans = {sizes: self._plan(sizes[0]) for sizes in groups}
        most = max(plan[seen.layer][2] for plan in plans.values())
        recycling = _Recycling(seen, self.score(seen), most)
        for sizes, rows in groups.items():
            earlier = sum(clusters for layer, (*_, clusters) in plans[sizes].items() if layer < seen.layer)
            recycling.prune(rows, *plans[sizes][seen.layer], earlier)
        return recycling.choice([int(count) for count in counts if count is not None])

    def choosing_flops(self, sizes: Sizes) -> int:
        plan = self._plan(sizes.visual_tokens)
        per_layer = self.visual_tokens_per_layer(sizes.visual_tokens, sizes.layers)
        rows, flops = sizes.text_tokens, 0
        ones = sizes.head_dim if self.version == "v2" else 0
        for layer, (_, _, clusters) in plan.items():
            keys = per_layer[layer - 1] + sizes.text_tokens
            flops += 2 * rows * (sizes.visual_tokens + sizes.text_tokens) * sizes.hidden  # raters
            flops += 2 * rows * keys * (sizes.heads * sizes.head_dim + ones + sizes.heads)
            flops += 2 * clusters * keys * sizes.hidden
        return flops


def _raters(seen: ObservedLayer) -> Tensor:
    """bool `[B, S]`, the text tokens that visual tokens are closer to than to text on average, by input embeddings."""
    prompt, device = seen.prompt.tokens, seen.hidden_BSD.device
    behind_BL = prompt.text_BS & (prompt.visual_BS.flip(1).cumsum(dim=1).flip(1) == 0)
    is_last_BL = torch.arange(prompt.length, device=device) == prompt.last_B[:, None]
    behind_BL = torch.where(behind_BL.any(dim=1, keepdim=True), behind_BL, is_last_BL)
    # Text of every row first; rows with less text go on with other tokens, which are not behind the images.
    places_BT = (~prompt.text_BS).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(prompt.text)]
    behind_BT = behind_BL.gather(1, places_BT)
    embeddings_BLD = seen.prompt.embeddings_BLD
    products_BLT = (embeddings_BLD @ take_tokens(embeddings_BLD, places_BT).mT).float()
    closeness_BLT = products_BLT.masked_fill(~behind_BT[:, None], float("-inf")).softmax(dim=2)
    received_BT = closeness_BLT.masked_fill(~prompt.visual_BS[..., None], 0).sum(dim=1)
    average_B1 = received_BT.sum(dim=1, keepdim=True) / behind_BT.sum(dim=1, keepdim=True)
    raters_BT = behind_BT & (received_BT > average_B1)
    # A single text token is never above its own mean.
    raters_BT = torch.where(raters_BT.any(dim=1, keepdim=True), raters_BT, behind_BT)
    # No text has left since: the i-th text token of a row is still its i-th.
    number_BS = (seen.tokens.text_BS.cumsum(dim=1) - 1).clamp(min=0)
    return raters_BT.gather(1, number_BS) & seen.tokens.text_BS


def _attention_of_ones(seen: ObservedLayer, rows_BR: Tensor) -> Tensor:
    """What the rotary embedding alone makes of a query and a key of all ones: scaled products `[B, 1, R, S]`."""
    assert seen.previous is not None and seen.previous.rotary is not None
    cos, sin = (values.float().expand(len(rows_BR), -1, -1) for values in seen.previous.rotary)
    # The rotary embedding turns the first half of the dimensions against the second.
    half = cos.shape[2] // 2
    ones_BSd = cos + torch.cat([-sin[..., :half], sin[..., half:]], dim=2)
    return attention_logits(take_tokens(ones_BSd, rows_BR)[:, None], ones_BSd[:, None])


class _Recycling:
    """Collects what stays and what is merged, for rows of a batch that have different numbers of tokens."""

    def __init__(self, seen: ObservedLayer, scores_BS: Tensor, clusters: int) -> None:
        tokens, device = seen.tokens, scores_BS.device
        self._seen, self._scores_BS = seen, scores_BS
        self._clusters_K = torch.arange(clusters, device=device)
        self._visual_first_BS = (~tokens.visual_BS).to(torch.uint8).argsort(dim=1, stable=True)
        self._keep_BS = ~tokens.visual_BS
        self._numbers_BS = tokens.numbers_BS
        # Between two tokens there is room for merged ones.
        self._order_BS = (torch.arange(tokens.length, device=device) * (clusters + 1)).expand_as(tokens.numbers_BS)
        # Rows that merge nothing keep their last token as it is.
        self._slots_BK = seen.last_B1.expand(-1, clusters)
        self._weights_BKS = torch.zeros(*self._slots_BK.shape, tokens.length, device=device).scatter(
            2, self._slots_BK[..., None], 1.0
        )

    def prune(self, rows: Sequence[int], kept: int, candidates: int, clusters: int, earlier: int) -> None:
        """Decide for rows that have equally many visual tokens and made `earlier` merged ones in stages before."""
        seen, rows_G1 = self._seen, upload(rows, self._scores_BS.device)[:, None]
        places_GN = self._visual_first_BS[rows_G1[:, 0], : seen.tokens.visual[rows[0]]]
        ranked_GN = places_GN.gather(1, rank(self._scores_BS[rows_G1, places_GN]))
        yes = self._keep_BS.new_ones(())
        self._keep_BS = self._keep_BS.index_put((rows_G1, ranked_GN[:, :kept]), yes)
        if clusters == 0:
            return
        pool_GC = ranked_GN[:, kept : kept + candidates]
        centres_GK, members_GKC = cluster_by_density(seen.hidden_BSD[rows_G1, pool_GC], clusters)
        slots_GK, weights_GKC = pool_GC.gather(1, centres_GK), members_GKC / members_GKC.sum(dim=2, keepdim=True)
        self._keep_BS = self._keep_BS.index_put((rows_G1, slots_GK), yes)
        number_K = self._clusters_K[:clusters]
        behind_GK = self._order_BS[rows_G1, places_GN[:, -1:]] + 1 + number_K
        self._order_BS = self._order_BS.index_put((rows_G1, slots_GK), behind_GK)
        numbers_GK = self._first_number(rows) + earlier + number_K
        self._numbers_BS = self._numbers_BS.index_put((rows_G1, slots_GK), numbers_GK)
        # Rows with fewer clusters than others repeat their last one.
        repeated_K = self._clusters_K.clamp(max=clusters - 1)
        self._slots_BK = self._slots_BK.index_put((rows_G1[:, 0],), slots_GK[:, repeated_K])
        weights_GKS = torch.zeros_like(self._weights_BKS[rows_G1[:, 0]]).scatter(
            2, pool_GC[:, None].expand(-1, len(repeated_K), -1), weights_GKC[:, repeated_K]
        )
        self._weights_BKS = self._weights_BKS.index_put((rows_G1[:, 0],), weights_GKS)

    def _first_number(self, rows: Sequence[int]) -> Tensor:
        """int64 `[G, 1]`, behind all numbers that a sample's tokens have had, also before the language model."""
        original_G = upload([self._seen.full.visual[row] for row in rows], self._scores_BS.device)
        entered_G = self._seen.prompt.tokens.numbers_BS[upload(rows, self._scores_BS.device)].amax(dim=1) + 1
        return original_G.maximum(entered_G)[:, None]

    def choice(self, visual: Sequence[int]) -> Choice:
        # With mRoPE positions stay, and so merged tokens stay in the places they take.
        order_BS = None if self._seen.family.mrope else self._order_BS
        merge = MergeInside(self._slots_BK, self._weights_BKS) if len(self._clusters_K) else None
        return Choice(self._keep_BS, visual, order_BS=order_BS, numbers_BS=self._numbers_BS, merge=merge)


def cluster_by_density(tokens_BCD: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Density peaks with k nearest neighbours (DPC-kNN): centres are dense and far from anything denser.

    Density is exp(-mean squared distance) to the k = `clusters` nearest tokens, the token itself included; distances
    are L2 / sqrt(D). Of tokens of equal density the lower index counts as the denser one.

    Args:
        tokens_BCD: C tokens; half precision is compared in float32.
        clusters: K, 1 <= K <= C.

    Returns:
        int64 `[B, K]` centres by falling density x distance, and bool `[B, K, C]`: which tokens each cluster has.
    """
    count, width = tokens_BCD.shape[1:]
    wide_BCD = tokens_BCD if tokens_BCD.dtype == torch.float64 else tokens_BCD.float()
    # Without matrix products: exactly symmetric, so that mutual nearest neighbours tie exactly everywhere.
    distance_BCC = torch.cdist(wide_BCD, wide_BCD, compute_mode="donot_use_mm_for_euclid_dist") / width**0.5
    nearest_BCK = distance_BCC.topk(clusters, dim=2, largest=False).values
    density_BC = (-nearest_BCK.square().mean(dim=2)).exp()
    place_C = torch.arange(count, device=tokens_BCD.device)
    mine_BC1, theirs_B1C = density_BC[:, :, None], density_BC[:, None, :]
    denser_BCC = (theirs_B1C > mine_BC1) | ((theirs_B1C == mine_BC1) & (place_C < place_C[:, None]))
    farthest_B11 = distance_BCC.amax(dim=(1, 2), keepdim=True)
    gap_BC = torch.where(denser_BCC, distance_BCC, farthest_B11).amin(dim=2)
    centres_BK = rank(gap_BC * density_BC)[:, :clusters]
    nearest_BC = take_tokens(distance_BCC, centres_BK).argmin(dim=1)
    numbers_BK = torch.arange(clusters, device=tokens_BCD.device).expand_as(centres_BK)
    cluster_BC = nearest_BC.scatter(1, centres_BK, numbers_BK)
    return centres_BK, cluster_BC[:, None, :] == numbers_BK[..., None]
