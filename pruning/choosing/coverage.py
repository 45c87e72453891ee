"""Greedy coverage: each pick is the token that adds most to what the picks before it already cover."""

import torch
from torch import Tensor

from pruning.choosing.selection import by_groups


def greedy_coverage(
    reach_BRN: Tensor, keep: int, *, worth_BN: Tensor | None = None, barred_BN: Tensor | None = None
) -> Tensor:
    """Facility location (Nemhauser et al. 1978): the picks that cover R targets best, one after the other.

    A target is covered as far as the pick that reaches it most; nothing is covered at first, so that a reach below 0
    covers nothing. A pick is the token of the largest gain in coverage, summed over the targets, times its worth.

    Args:
        reach_BRN: float, how far each of N tokens covers each of the R targets.
        keep: number of picks, 1 <= keep <= N.
        worth_BN: factor on the gains of every token; None is 1.
        barred_BN: bool, tokens that are never picked. At least `keep` others must be left.

    Returns:
        int64 `[B, keep]` in the order of the picks. Of equal gains the lower index goes first.

    Raises:
        ValueError: `keep` lies outside 1..N.
    """
    targets, count = reach_BRN.shape[1:]
    if not 1 <= keep <= count:
        raise ValueError(f"cannot pick {keep} of {count} tokens: keep must lie between 1 and {count}")
    if worth_BN is None:
        worth_BN = reach_BRN.new_ones(len(reach_BRN), count)
    if barred_BN is None:
        barred_BN = torch.zeros_like(worth_BN, dtype=torch.bool)

    def pick(reach_BRN: Tensor, worth_BN: Tensor, taken_BN: Tensor) -> Tensor:
        covered_BR1 = torch.zeros_like(reach_BRN[..., :1])
        picks = []
        for _ in range(keep):
            gain_BN = (reach_BRN - covered_BR1).clamp_(min=0).sum(dim=1) * worth_BN
            pick_B1 = gain_BN.masked_fill(taken_BN, float("-inf")).argmax(dim=1, keepdim=True)
            picks.append(pick_B1)
            taken_BN = taken_BN.scatter(1, pick_B1, True)
            column_BR1 = reach_BRN.gather(2, pick_B1[:, None].expand(-1, targets, -1))
            covered_BR1 = covered_BR1.maximum(column_BR1)
        return torch.cat(picks, dim=1)

    return by_groups(pick, targets * count, reach_BRN, worth_BN, barred_BN)
