"""Train the embedded model: `python -m experiments.train`. A frozen stage; `make train` runs it.

Three phases (see experiments/testbed/phases.py), each resumable from its checkpoint, on a GPU where there is one.
Writes data/models/scenes-llava and results/training.csv.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import torch
from transformers import AttentionInterface, LlavaForConditionalGeneration, PreTrainedModel, ProcessorMixin

from experiments.parameters import load_parameters
from experiments.testbed.architecture import build_model
from experiments.testbed.loop import Schedule, run_phase
from experiments.testbed.packing import packed_attention
from experiments.testbed.phases import Joint, Vision, Words
from experiments.testbed.vocabulary import build_processor

MODEL = Path("data/models/scenes-llava")
LOG = Path("results/training.csv")
CHECKPOINTS = Path("data/checkpoints")
PACKED = "packed_questions"


def save_model(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write model and processor as `from_pretrained` reads them; the folder is replaced only when complete."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.set_attn_implementation("sdpa")
    model.to("cpu").save_pretrained(part)
    processor.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def write_log(log: pd.DataFrame, path: Path) -> None:
    """Write as CSV, under a temporary name first."""
    path.parent.mkdir(exist_ok=True)
    log.to_csv(path.with_suffix(".part"), index=False)
    os.replace(path.with_suffix(".part"), path)


def train(seed: int, steps: dict[str, int], folder: Path) -> tuple[LlavaForConditionalGeneration, pd.DataFrame]:
    """All phases in order; returns the model and the log (phase, step, seconds, loss and measures)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    AttentionInterface.register(PACKED, packed_attention)
    model = build_model(seed).to(device)
    model.model.language_model.set_attn_implementation(PACKED)
    # Full attention over 145 patches is faster on a CPU as plain products than in the fused kernel.
    model.model.vision_tower.set_attn_implementation("eager" if device.type == "cpu" else "sdpa")
    logs = []
    for phase, schedule in (
        (Words(model), Schedule(steps["words"], rate=1e-3, matrix_rate=0.02)),
        (Vision(model), Schedule(steps["vision"], rate=1.5e-3, matrix_rate=0.02)),
        (Joint(model), Schedule(steps["joint"], rate=3e-4, matrix_rate=0.004)),
    ):
        logs.append(run_phase(phase, schedule, seed, device, folder))
    return model, pd.concat(logs, ignore_index=True)


def main() -> None:
    parameters = load_parameters().train
    torch.set_num_threads(os.cpu_count() or 1)
    model, log = train(parameters.seed, parameters.steps, CHECKPOINTS)
    save_model(model, build_processor(), MODEL)
    write_log(log, LOG)


if __name__ == "__main__":
    main()
