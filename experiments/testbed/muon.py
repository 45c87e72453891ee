"""Muon for many small matrices: all of one shape are orthogonalised at once."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class BatchedMuon(torch.optim.Optimizer):
    """What `torch.optim.Muon` computes (Jordan et al. 2024, with Nesterov momentum), in batches of one shape.

    torch's own takes matrix after matrix, some 2,600 small kernels a step for a decoder of 16 layers.

    Parameters:
        params: matrices.
        lr: learning rate; times the root of rows over columns where that is above 1.
        momentum: of the gradients' running mean.
        weight_decay: decoupled.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step along the orthogonalised momentum of each matrix."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in by_shape.items():
                for matrix in matrices:
                    if "momentum_buffer" not in self.state[matrix]:
                        self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
                gradients = [matrix.grad for matrix in matrices]
                buffers = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
                torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
                updates = torch._foreach_lerp(gradients, buffers, group["momentum"])
                steps = orthogonalised(torch.stack(updates)).to(matrices[0].dtype).unbind()
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, steps, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalised(matrices_MRC: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each, by Newton-Schulz iterations in bfloat16."""
    tall = matrices_MRC.shape[1] > matrices_MRC.shape[2]
    found = matrices_MRC.bfloat16()
    found = found.mT if tall else found
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found
