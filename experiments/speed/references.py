"""Every choice again, one token after the other, as its definition reads: what the batched code is held against.

Plain loops over images and picks, nothing shared with pruning/ but what a method looks at (attention rows, features,
and for SparseVLM and the methods that rank by attention the scores). For timing (experiments/benchmark_selection) and
for checking; slow on purpose and not used elsewhere. Each returns the kept visual tokens of every image in the order
in which ours enter; merged tokens count as -1. Equal scores go to the lower index.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pruning.engine.seen import Observed, ObservedLayer
from pruning.engine.tokens import Choice
from pruning.methods.cdpruner import text_relevance
from pruning.methods.random import random_scores

Kept = list[list[int]]


def best_first(scores_N: Tensor, count: int) -> list[int]:
    """The `count` highest scores, one after the other."""
    left_N, picks = scores_N.clone(), []
    lowest = torch.iinfo(left_N.dtype).min if not left_N.is_floating_point() else float("-inf")
    for _ in range(count):
        pick = int(left_N.argmax())
        picks.append(pick)
        left_N[pick] = lowest
    return picks


def random(method: Any, seen: Observed) -> Kept:
    return [sorted(best_first(scores_N, method.keep)) for scores_N in random_scores(seen, method.seed)]


def fastervlm(method: Any, seen: Observed) -> Kept:
    return [sorted(best_first(heads_HN.mean(dim=0), method.keep)) for heads_HN in seen.cls_attention_BHN]


def vispruner(method: Any, seen: Observed) -> Kept:
    kept, important = [], int(method.keep * method.important_ratio)
    for heads_HN, features_NC in zip(seen.cls_attention_BHN, seen.features_BNC, strict=True):
        order = best_first(heads_HN.mean(dim=0), seen.num_visual)
        unit_NC = _unit(features_NC)
        rest = order[important:]
        while (surplus := len(rest) - (method.keep - important)) > 0:
            even, odd = rest[0::2], rest[1::2]
            nearest = (unit_NC[even] @ unit_NC[odd].T).amax(dim=1)
            falling = best_first(nearest, len(even))
            rest = [even[place] for place in falling[min(8, surplus) :]] + odd
        kept.append(sorted(order[:important] + rest))
    return kept


def divprune(method: Any, seen: Observed) -> Kept:
    kept = []
    for tokens_ND in seen.projected_BND:
        unit_ND = _unit(tokens_ND)
        distance_NN = 1 - unit_ND @ unit_ND.T
        picks = [int(distance_NN.sort(dim=0).values[1].argmax())]
        while len(picks) < method.count(seen.num_visual):
            nearest_N = distance_NN[:, picks].amin(dim=1)
            nearest_N[picks] = float("-inf")
            picks.append(int(nearest_N.argmax()))
        kept.append(sorted(picks))
    return kept


def cdpruner(method: Any, seen: Observed) -> Kept:
    kept = []
    for tokens_ND, relevance_N in zip(seen.projected_BND, text_relevance(seen), strict=True):
        unit_ND = _unit(tokens_ND)
        scaled_N = (relevance_N - relevance_N.min() + 1e-6) / (relevance_N.max() - relevance_N.min())
        kernel_NN = scaled_N[:, None] * (unit_ND @ unit_ND.T) * scaled_N
        gain_N, factors, picks = kernel_NN.diagonal().clone(), list[Tensor](), list[int]()
        for _ in range(method.keep):
            pick = int(gain_N.argmax())
            row_N = kernel_NN[pick].clone()
            for factor_N in factors:
                row_N -= factor_N[pick] * factor_N
            row_N /= gain_N[pick].sqrt()
            gain_N = gain_N - row_N**2
            gain_N[[*picks, pick]] = float("-inf")
            factors.append(row_N)
            picks.append(pick)
        kept.append(sorted(picks))
    return kept


def visionzip(method: Any, seen: Observed) -> Kept:
    """The dominant tokens; what joins which target is merged token by token too."""
    dominant, contextual = method._split
    kept = []
    for image, heads_HN in enumerate(seen.cls_attention_BHN):
        chosen = sorted(best_first(heads_HN.sum(dim=0), dominant - 1))
        taken = set(chosen)
        rest = [token for token in range(seen.num_visual) if token not in taken]
        if contextual == 0:
            kept.append([-1, *chosen])
            continue
        step = max(1, len(rest) // contextual)
        targets = rest[: contextual * step : step]
        unit_NC, features_NC = _unit(seen.head_keys_BNC[image]), seen.features_BNC[image]
        joined: dict[int, list[int]] = {target: [] for target in targets}
        for token in rest:
            if token not in joined:
                joined[targets[int((unit_NC[targets] @ unit_NC[token]).argmax())]].append(token)
        merged = [
            features_NC[target] + (features_NC[others].mean(dim=0) if others else 0)
            for target, others in joined.items()
        ]
        seen.project(torch.stack(merged)[None])
        kept.append([-1, *chosen, *[-1] * contextual])
    return kept


def prumerge(method: Any, seen: Observed) -> Kept:
    """The kept tokens in the order in which they enter, and the sum of the others; also for PruMerge+."""
    kept = []
    important, sampled = method.plan(seen.num_visual)
    for image, attention_N in enumerate(seen.wide_attention_BN):
        others_N = attention_N.clone()
        others_N[list(sampled)] = float("-inf")
        chosen = [*best_first(others_N, important), *sampled]
        unit_NC, features_NC = _unit(seen.wide_keys_BNC[image]), seen.mergeable_BNC[image]
        merged = []
        for token in chosen:
            alike_N = unit_NC @ unit_NC[token]
            alike_N[token] = float("-inf")
            total_C = features_NC[token].clone()
            for neighbour in best_first(alike_N, min(method.neighbours, seen.num_visual - 1)):
                total_C += attention_N[neighbour].to(total_C.dtype) * features_NC[neighbour]
            merged.append(total_C)
        weights_N = attention_N.clone()
        weights_N[chosen] = 0
        merged.append(weights_N.to(features_NC.dtype) @ features_NC)
        seen.project(torch.stack(merged)[None])
        kept.append([*chosen, -1])
    return kept


def tome(method: Any, seen: Observed) -> Kept:
    rounds, kept = seen.family.vision_layer + 1, []
    surplus = seen.num_visual - method.keep
    for values_NC, keys_NE in zip(seen.mergeable_BNC, seen.head_keys_BNC, strict=True):
        values, keys = list(_wide(values_NC)), list(_wide(keys_NE))
        members = [[token] for token in range(len(values))]
        for done in range(rounds):
            merges = (done + 1) * surplus // rounds - done * surplus // rounds
            while merges > 0:
                now = min(merges, len(values) // 2)
                _merge_round(values, keys, members, now)
                merges -= now
        entering = sorted(members, key=min)
        kept.append([group[0] if len(group) == 1 else -1 for group in entering])
        seen.project(torch.stack(values)[None])
    return kept


def _merge_round(values: list[Tensor], keys: list[Tensor], members: list[list[int]], merges: int) -> None:
    """Even tokens join the odd ones that they are most like; the others stay, even ones first."""
    even, odd = range(0, len(values), 2), range(1, len(values), 2)
    unit_NE = _unit(torch.stack(keys))
    alike = unit_NE[0::2] @ unit_NE[1::2].T
    joining = best_first(alike.amax(dim=1), merges)
    for place in joining:
        token, target = even[place], odd[int(alike[place].argmax())]
        ours, theirs = len(members[token]), len(members[target])
        for each in (values, keys):
            each[target] = (each[target] * theirs + each[token] * ours) / (ours + theirs)
        members[target] = members[target] + members[token]
    joined = set(joining)
    left = [token for place, token in enumerate(even) if place not in joined] + list(odd)
    for each in (values, keys, members):
        each[:] = [each[token] for token in left]


def by_attention(method: Any, seen: ObservedLayer, counts: Sequence[int | None]) -> Kept:
    """FastV, Sequential Prune and PyramidDrop: the highest scores among the visual tokens."""
    scores_BS = method.score(seen).masked_fill(~seen.visual_BS, float("-inf"))
    return [sorted(best_first(scores_S, int(count or 0))) for scores_S, count in zip(scores_BS, counts, strict=True)]


def dart(method: Any, seen: ObservedLayer, counts: Sequence[int | None]) -> Kept:
    kept = []
    each = method.max_tokens // (method.visual_pivots + method.text_pivots)
    assert seen.previous is not None
    keys_BHSd = seen.previous.keys()
    normed_BSD = seen.family.language_model.norm(seen.hidden_BSD)
    for row, visual_S in enumerate(seen.visual_BS):
        norm_S = _wide(keys_BHSd[row]).abs().sum(dim=(0, 2))
        behind_S = torch.arange(len(visual_S), device=visual_S.device) > visual_S.nonzero().max()
        visual_pivots = best_first(norm_S.masked_fill(~visual_S, float("-inf")), method.visual_pivots)
        text_pivots = best_first(norm_S.masked_fill(~behind_S, float("-inf")), method.text_pivots)
        unit_SD = _unit(normed_BSD[row].float())
        taken = list(visual_pivots)
        for pivot in visual_pivots + text_pivots:
            far_S = -(unit_SD @ unit_SD[pivot]).masked_fill(~visual_S, float("inf"))
            far_S[taken] = float("-inf")
            taken += best_first(far_S, each)
        kept.append(sorted(taken))
    return kept


def sparsevlm(method: Any, seen: ObservedLayer, counts: Sequence[int | None]) -> Kept:
    """The kept tokens and the centres of the clusters that the others are merged into."""
    chosen = []
    scores_BS = method.score(seen).masked_fill(~seen.visual_BS, float("-inf"))
    keep, candidates, clusters = method._plan(seen.prompt.tokens.visual[0])[seen.layer]
    for scores_S, hidden_SD in zip(scores_BS, seen.hidden_BSD, strict=True):
        order = best_first(scores_S, keep + candidates)
        pool = order[keep:]
        tokens_CD = _wide(hidden_SD[pool])
        distance_CC = torch.stack([(tokens_CD - token_D).norm(dim=1) for token_D in tokens_CD])
        distance_CC = distance_CC / tokens_CD.shape[1] ** 0.5
        density_C = torch.stack([(-row_C.sort().values[:clusters].square().mean()).exp() for row_C in distance_CC])
        density, gaps = density_C.tolist(), []
        for place, row in enumerate(distance_CC.tolist()):
            denser = [
                row[other]
                for other in range(len(pool))
                if density[other] > density[place] or (density[other] == density[place] and other < place)
            ]
            gaps.append(min(denser, default=float(distance_CC.max())))
        peaks = best_first(density_C * torch.tensor(gaps, dtype=density_C.dtype, device=density_C.device), clusters)
        chosen.append(sorted(order[:keep] + [pool[peak] for peak in peaks]))
    return chosen


# By name: of the choice before the language model, and of the choice in front of one layer. Not here: `grid`, `pool`,
# `vtw` and `full`, which pick nothing by a score, the two oracles, who know, and `glimpse`, whose scores are learned.
BEFORE: dict[str, Callable[[Any, Observed], Kept]] = {
    "random": random,
    "fastervlm": fastervlm,
    "vispruner": vispruner,
    "divprune": divprune,
    "cdpruner": cdpruner,
    "visionzip": visionzip,
    "prumerge": prumerge,
    "prumerge_plus": prumerge,
    "tome": tome,
}
INSIDE: dict[str, Callable[[Any, ObservedLayer, Sequence[int | None]], Kept]] = {
    "fastv": by_attention,
    "sequential_prune": by_attention,
    "pyramiddrop": by_attention,
    "dart": dart,
    "sparsevlm": sparsevlm,
}


def visual_places(choice: Choice, seen: ObservedLayer) -> Kept:
    """The visual tokens that a choice in front of a layer keeps, as places in the row."""
    return [row_S.nonzero()[:, 0].tolist() for row_S in choice.keep_BS & seen.visual_BS]


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _unit(values_NC: Tensor) -> Tensor:
    wide_NC = _wide(values_NC)
    return wide_NC / wide_NC.norm(dim=-1, keepdim=True)
