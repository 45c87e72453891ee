"""Numbers of tokens that the groups of an image or video give."""

from torch import Tensor
from torch.nn.functional import pad

from pruning.choosing.selection import rank


def hand_on(quota_BG: Tensor, weight_BG: Tensor, most: Tensor, total: int) -> Tensor:
    """Quotas cut to what is there; what then lacks of the total goes to the groups of largest weight that have room.

    Args:
        quota_BG: int64, tokens asked of every group.
        weight_BG: who is given more first; of equal ones the lower index.
        most: int64 `[G]` or `[B, G]`, tokens that every group can give.
        total: of all groups together.

    Returns:
        int64 `[B, G]`.
    """
    cut_BG = quota_BG.minimum(most)
    lacking_B1 = total - cut_BG.sum(dim=1, keepdim=True)
    order_BG = rank(weight_BG)
    room_BG = (most - cut_BG).gather(1, order_BG)
    before_BG = pad(room_BG.cumsum(dim=1)[:, :-1], (1, 0))
    return cut_BG.scatter_add(1, order_BG, (lacking_B1 - before_BG).clamp(min=0).minimum(room_BG))
