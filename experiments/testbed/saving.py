"""How the embedded models are saved."""

import os
import shutil
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, ProcessorMixin

LLAVA = Path("data/models/scenes-llava")
PACKED = "packed_questions"


def save_model(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write model and processor as `from_pretrained` reads them; the folder is replaced only when complete.

    The weights are float32 numbers that bfloat16 holds: what git stores of them is half as large.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.set_attn_implementation("sdpa")
    model.to("cpu", torch.bfloat16).float().save_pretrained(part)
    processor.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def write_log(log: pd.DataFrame, path: Path) -> None:
    """Write as CSV, under a temporary name first."""
    path.parent.mkdir(exist_ok=True)
    log.to_csv(path.with_suffix(".part"), index=False)
    os.replace(path.with_suffix(".part"), path)
