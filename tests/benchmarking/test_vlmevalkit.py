"""The launcher, on a small stand-in of VLMEvalKit's interface; the real one has not been run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import pruning
from experiments.asking.inputs import build_inputs
from experiments.asking.models import load
from experiments.benchmarking.questions import QuestionsError
from experiments.benchmarking.vlmevalkit import CheckoutError, Message, launch
from tests.tiny_models import tiny_llava
from tests.tiny_processors import save_tiny

ROOT = Path(__file__).parents[2]
# What the launcher relies on: a dictionary of partials, a base class whose generate calls generate_inner, and a run.py
# that makes the model that --model names and asks it row by row.
STAND_IN = {
    "vlmeval/__init__.py": "",
    "vlmeval/config.py": "supported_VLM = {}\n",
    "vlmeval/vlm/__init__.py": "",
    "vlmeval/vlm/base.py": """
class BaseModel:
    INTERLEAVE = False

    def __init__(self):
        self.asked = 0

    def generate(self, message, dataset=None):
        self.asked += 1
        assert all(set(part) >= {"type", "value"} for part in message)
        return self.generate_inner(message, dataset)
""",
    "run.py": """
import argparse, json
from vlmeval.config import supported_VLM

parser = argparse.ArgumentParser()
parser.add_argument("--model", nargs="+")
parser.add_argument("--data", nargs="+")
parser.add_argument("--work-dir")

if __name__ == "__main__":
    given = parser.parse_args()
    model = supported_VLM[given.model[0]]()
    rows = json.load(open(given.data[0]))
    answers = [model.generate(message=row, dataset="stand_in") for row in rows]
    json.dump({"model": given.model[0], "answers": answers, "asked": model.asked}, open(given.work_dir, "w"))
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in STAND_IN.items():
        file = tmp_path / "VLMEvalKit" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "VLMEvalKit"


def test_answers_are_the_methods(checkout: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = save_tiny(tiny_llava()[0], tmp_path / "tiny")
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (40, 24), colour).save(tmp_path / f"{number}.png")
    rows = [
        [{"type": "image", "value": str(tmp_path / f"{number}.png")}, {"type": "text", "value": "what colour is it ?"}]
        for number in (0, 1)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    options = ["--model", str(folder), "--method", "vispruner", "--budget", "0.25", "--max-new-tokens", "4"]
    theirs = ["--data", str(tmp_path / "rows.json"), "--work-dir", str(tmp_path / "out.json")]
    command = [sys.executable, "-m", "experiments.benchmarking.vlmevalkit", str(checkout), *options, "--", *theirs]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["model"] == "pruned-tiny-vispruner-budget-0.25" and found["asked"] == 2
    model, processor = load(str(folder), device="cpu")
    for row, text in zip(rows, found["answers"], strict=True):
        inputs = build_inputs(processor, [row[0]["value"]], [row[1]["value"]])
        with pruning.make("vispruner", keep=9)(model), torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip() == text


def test_several_images_are_refused() -> None:
    with pytest.raises(QuestionsError, match="a question with 0 images"):
        Message([{"type": "text", "value": "what"}])


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match="is no clone of VLMEvalKit"):
        launch(tmp_path, "name", {}, [])
