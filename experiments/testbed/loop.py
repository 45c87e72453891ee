"""One phase of training: batches from worker processes, Muon for matrices, checkpoints that resume, a log."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from experiments.testbed.muon import BatchedMuon
from experiments.testbed.phases import Batch, Phase

LOG_EVERY = 25
CHECKPOINT_EVERY = 200
MOST_WORKERS = 12


@dataclass(frozen=True)
class Schedule:
    """AdamW's learning `rate` for vectors and embeddings, Muon's `matrix_rate`; both warm up, hold and decay to 0."""

    steps: int
    rate: float
    matrix_rate: float
    warm_up: int = 100
    decay_share: float = 0.4

    def factor(self, step: int) -> float:
        """Share of the full learning rate at a step counted from 0."""
        left = (self.steps - step) / max(1, self.steps * self.decay_share)
        return min(1.0, (step + 1) / self.warm_up, max(left, 0.0))


class _Drawn(IterableDataset):
    """Batch `i` depends on (seed, phase, i) alone: a resumed run sees what an uninterrupted one would."""

    def __init__(self, phase: Phase, seed: int, first: int, last: int) -> None:
        self.phase, self.seed, self.span = phase, seed, range(first, last)

    def __iter__(self) -> Iterator[Batch]:
        name = int.from_bytes(self.phase.name.encode(), "little")
        # Workers are asked in turn, so that batches come in order, however many there are.
        worker = get_worker_info()
        for step in self.span[worker.id :: worker.num_workers] if worker else self.span:
            yield self.phase.draw(np.random.default_rng([self.seed, name, step]))


def _optimizers(phase: Phase, schedule: Schedule) -> list[torch.optim.Optimizer]:
    trained = phase.parameters()
    by_muon = [p for name, p in trained if p.ndim == 2 and not any(x in name for x in ("embed", "head"))]
    chosen = {id(p) for p in by_muon}
    by_adam = [p for _, p in trained if id(p) not in chosen]
    return [
        BatchedMuon(by_muon, lr=schedule.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(by_adam, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def run_phase(
    phase: Phase,
    schedule: Schedule,
    seed: int,
    device: torch.device,
    folder: Path,
    workers: int | None = None,
    compiled: bool = True,
) -> pd.DataFrame:
    """Train one phase, or finish it where an earlier run stopped; returns its log, one row each LOG_EVERY steps.

    The trained parameters are changed in place. `folder` holds the phase's checkpoint. Batches are drawn in worker
    processes, by default one for all cores but one, MOST_WORKERS at most. The phase's layers are compiled, one for all
    of a kind, unless a short run is better off without.
    """
    workers = min(MOST_WORKERS, max(1, (os.cpu_count() or 1) - 1)) if workers is None else workers
    trained = phase.parameters()
    optimizers = _optimizers(phase, schedule)
    full_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    path = folder / f"{phase.name}.pt"
    log: list[dict[str, Any]] = []
    first = 0
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        with torch.no_grad():
            for (_, parameter), value in zip(trained, saved["parameters"], strict=True):
                parameter.copy_(value)
        if saved["step"] < schedule.steps:
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        first, log = saved["step"], saved["log"]
    seconds_before = log[-1]["seconds"] if log else 0.0
    batches = DataLoader(_Drawn(phase, seed, first, schedule.steps), batch_size=None, num_workers=workers)
    for layer in phase.layers() if compiled else ():
        layer.compile(dynamic=False)
    recent: list[Tensor] = []
    progress = tqdm(batches, desc=phase.name, initial=first, total=schedule.steps, mininterval=5)
    for step, batch in enumerate(progress, start=first):
        torch.manual_seed(seed * schedule.steps + step)
        for optimizer, full_rate in zip(optimizers, full_rates, strict=True):
            optimizer.param_groups[0]["lr"] = full_rate * schedule.factor(step)
        batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        with torch.autocast(device.type, torch.bfloat16):
            loss, measures = phase.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        measures = {"loss": loss} | measures
        recent.append(torch.stack([value.detach().float() for value in measures.values()]))
        if (step + 1) % LOG_EVERY == 0:
            # A type that no scene of a batch could be asked has no share there.
            shares = torch.stack(recent).nanmean(0).tolist()
            means = {key: round(share, 5) for key, share in zip(measures, shares, strict=True)}
            seconds = round(seconds_before + progress.format_dict["elapsed"], 1)
            log.append({"phase": phase.name, "step": step + 1, "seconds": seconds, **means})
            progress.set_postfix_str(" ".join(f"{key} {value:.3f}" for key, value in means.items()))
            recent = []
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == schedule.steps:
            # Once finished, only what was trained is needed: half of the size.
            states = [optimizer.state_dict() for optimizer in optimizers] if step + 1 < schedule.steps else []
            parameters = [p.detach() for _, p in trained]
            _save(path, {"parameters": parameters, "optimizers": states, "step": step + 1, "log": log})
    return pd.DataFrame(log)
