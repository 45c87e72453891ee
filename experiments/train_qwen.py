"""Train the second embedded model: `python -m experiments.train_qwen`. A frozen stage; `make train` runs it.

A stock Qwen2.5-VL that starts from the decoder of data/models/scenes-llava. Two phases (see
experiments/testbed/phases_qwen.py), each resumable from its checkpoint. Writes data/models/scenes-qwen and
results/training_qwen.csv.
"""

import os
from pathlib import Path

import pandas as pd
import torch
from transformers import AttentionInterface, LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.testbed.architecture_qwen import build_model
from experiments.testbed.loop import Schedule, run_phase
from experiments.testbed.packing import packed_attention
from experiments.testbed.phases_qwen import EQUAL_WINDOWS, Joint, Vision, equal_windows
from experiments.testbed.saving import LLAVA, PACKED, save_model, write_log
from experiments.testbed.vocabulary import build_qwen_processor

MODEL = Path("data/models/scenes-qwen")
LOG = Path("results/training_qwen.csv")
CHECKPOINTS = Path("data/checkpoints/scenes-qwen")


def train(
    llava: LlavaForConditionalGeneration, seed: int, steps: dict[str, int], folder: Path
) -> tuple[Qwen2_5_VLForConditionalGeneration, pd.DataFrame]:
    """All phases in order; returns the model and the log (phase, step, seconds, loss and measures)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    AttentionInterface.register(PACKED, packed_attention)
    AttentionInterface.register(EQUAL_WINDOWS, equal_windows)
    model = build_model(llava, seed).to(device)
    model.model.language_model.set_attn_implementation(PACKED)
    # Not through set_attn_implementation, which takes every name with "flash" in it for a package to import.
    model.model.visual.config._attn_implementation = EQUAL_WINDOWS
    logs = []
    for phase, schedule in (
        (Vision(model), Schedule(steps["vision"], rate=1.5e-3, matrix_rate=0.02)),
        (Joint(model), Schedule(steps["joint"], rate=3e-4, matrix_rate=0.004, warm_up=20)),
    ):
        logs.append(run_phase(phase, schedule, seed, device, folder))
    return model, pd.concat(logs, ignore_index=True)


def write(parameters: Parameters) -> None:
    """The model and its log."""
    asked = parameters.train_qwen
    torch.set_num_threads(os.cpu_count() or 1)
    llava = LlavaForConditionalGeneration.from_pretrained(LLAVA)
    model, log = train(llava, asked.seed, asked.steps, CHECKPOINTS)
    save_model(model, build_qwen_processor(), MODEL)
    write_log(log, LOG)


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
