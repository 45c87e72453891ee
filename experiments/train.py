"""Train the embedded model: `python -m experiments.train`. A frozen stage; `make train` runs it.

Five phases (see experiments/testbed/phases.py), each resumable from its checkpoint, on a GPU where there is one.
Writes data/models/scenes-llava and results/training.csv.
"""

from pathlib import Path

import pandas as pd
import torch
from transformers import AttentionInterface, LlavaForConditionalGeneration

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.testbed.architecture import GROWTH, build_model, grow
from experiments.testbed.loop import Schedule, run_phase
from experiments.testbed.packing import packed_attention
from experiments.testbed.phases import ALL_LOOKS, CHAINS, ONE_LOOK, STEPS, Phase, Vision, Words
from experiments.testbed.questions import SEVERAL_LOOKS
from experiments.testbed.saving import LLAVA, PACKED, save_model, write_log
from experiments.testbed.vocabulary import build_processor

LOG = Path("results/training.csv")
CHECKPOINTS = Path("data/checkpoints")


def train(seed: int, steps: dict[str, int], folder: Path) -> tuple[LlavaForConditionalGeneration, pd.DataFrame]:
    """All phases in order; returns the model and the log (phase, step, seconds, loss and measures)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    AttentionInterface.register(PACKED, packed_attention)
    model = build_model(seed).to(device)
    model.model.language_model.set_attn_implementation(PACKED)
    # Full attention over 145 patches is faster on a CPU as plain products than in the fused kernel.
    model.model.vision_tower.set_attn_implementation("eager" if device.type == "cpu" else "sdpa")
    logs = []

    def run(phase: Phase, rate: float, matrix_rate: float, decay_share: float = 0.4) -> None:
        schedule = Schedule(steps[phase.name], rate, matrix_rate, decay_share=decay_share)
        logs.append(run_phase(phase, schedule, seed, device, folder))

    before_looks, after_looks = GROWTH
    run(Words(model, "words", ONE_LOOK, tuple(ONE_LOOK.shares)), rate=1e-3, matrix_rate=0.02, decay_share=0.087)
    grow(model, *before_looks)
    run(Words(model, "looks", ALL_LOOKS, SEVERAL_LOOKS), rate=4e-4, matrix_rate=0.006)
    run(Words(model, "chains", CHAINS, ("chain", "relay")), rate=4e-4, matrix_rate=0.006, decay_share=0.5)
    run(Words(model, "steps", STEPS, ("chain", "relay")), rate=4e-4, matrix_rate=0.006, decay_share=0.5)
    grow(model, *after_looks)
    run(Vision(model), rate=1.5e-3, matrix_rate=0.02)
    return model, pd.concat(logs, ignore_index=True)


def write(parameters: Parameters) -> None:
    """The model and its log."""
    asked = parameters.train
    model, log = train(asked.seed, asked.steps, CHECKPOINTS)
    save_model(model, build_processor(), LLAVA)
    write_log(log, LOG)


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
