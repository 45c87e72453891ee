"""From questions and a model in a folder to the attention tables and figures."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset, Features, Sequence, Value
from datasets import Image as ImageFeature
from PIL import Image

from experiments import attention_statistics, capture_attention, figures
from experiments.asking import models
from experiments.asking.inputs import build_inputs
from experiments.probing.attention import prefill_statistics
from experiments.recorded import paths
from tests.tiny_models import tiny_llava
from tests.tiny_processors import save_tiny

PARAMETERS = Path(__file__).parents[2] / "params.yaml"
TYPES = ("attribute", "existence")


def write_benchmark(path: Path, questions: int) -> list[dict]:
    """Questions of two types about random images, as data/scenes/evaluation.parquet holds them."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(questions):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
        question = "what colour is the circle ?" if number % 2 else "is the circle red and the circle blue ?"
        row = {"id": f"q{number}", "image": {"bytes": buffer.getvalue(), "path": None}, "question": question}
        rows.append(row | {"answer": "yes", "type": TYPES[number % 2], "boxes": [[0.1, 0.2, 0.3, 0.4]]})
    text = {name: Value("string") for name in ("id", "question", "answer", "type")}
    features = Features({**text, "image": ImageFeature(), "boxes": Sequence(Sequence(Value("float64")))})
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)
    return rows


def write_parameters(folder: Path, model: Path, questions: int) -> None:
    parameters = yaml.safe_load(PARAMETERS.read_text())
    parameters["model"] = str(model)
    parameters["capture_attention"] |= {"questions": questions, "batch_size": 4}
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A folder like the repository's, with a tiny model and ten questions."""
    model, _ = tiny_llava((1,))
    save_tiny(model, tmp_path / "model")
    write_benchmark(tmp_path / "data/scenes/evaluation.parquet", 10)
    write_parameters(tmp_path, tmp_path / "model", 10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_questions_to_figures(workspace):
    capture_attention.main()
    attention_statistics.main()
    assert [path.name for path in (workspace / "results/attention").iterdir()] == ["statistics.npz"]

    shift = pd.read_csv("results/attention_shift.csv")
    assert list(shift.columns) == ["layer", "query", "token", "attention"]
    assert shift.groupby("query").size().to_dict() == {
        "cls": 36, "equi_last": 216, "full": 216, "image": 216, "last": 216, "text": 216,
    }  # fmt: skip
    quartiles = pd.read_csv("results/attention_quartiles.csv")
    np.testing.assert_allclose(quartiles.groupby("layer")["share"].sum(), 1, atol=1e-4)
    selection = pd.read_csv("results/attention_selection.csv")
    assert selection.groupby("score")["frequency"].sum().round(6).to_dict() == {"cls": 4, "equi_last": 4, "last": 4}
    dispersion = pd.read_csv("results/attention_dispersion.csv")
    assert dispersion.groupby(["score", "curve"]).size().eq(200).all()
    densities = dispersion[dispersion["curve"] == "density"].groupby("score")["y"].mean()
    np.testing.assert_allclose(densities, 1, atol=1e-3)
    for name in ("attention_shift", "attention_dispersion"):
        assert all(path.stat().st_size > 5000 for path in figures.draw(name))


def test_means_are_those_of_single_questions(workspace):
    capture_attention.main()
    model, processor = models.load(str(workspace / "model"))
    questions = pd.read_parquet("data/scenes/evaluation.parquet")
    single = []
    for image, question in zip(questions["image"], questions["question"], strict=True):
        statistics = prefill_statistics(model, build_inputs(processor, [image], [question]))
        single.append(statistics["text"][0].double())
    with np.load("results/attention/statistics.npz") as arrays:
        np.testing.assert_allclose(arrays["mean/text"], torch.stack(single).mean(0), atol=1e-6)
        assert arrays["samples"] == 10


def test_file_and_tables_are_the_same_twice_and_as_large_for_fewer_questions(workspace):
    def run() -> tuple[dict[str, tuple], dict[str, bytes]]:
        capture_attention.main()
        attention_statistics.main()
        with np.load("results/attention/statistics.npz") as arrays:
            shapes = {name: arrays[name].shape for name in arrays}
        return shapes, {path.name: path.read_bytes() for path in sorted(Path("results").glob("*.csv"))}

    shapes, tables = run()
    assert run() == (shapes, tables)
    write_parameters(workspace, workspace / "model", 3)
    fewer, _ = run()
    assert fewer == shapes


def test_tables_hold_few_digits(workspace):
    capture_attention.main()
    attention_statistics.main()
    values = pd.read_csv("results/attention_shift.csv", dtype=str)["attention"]
    mantissas = values.str.split("e").str[0].str.replace(".", "", regex=False).str.lstrip("0")
    assert mantissas.str.len().max() <= attention_statistics.DIGITS


def test_interrupted_capture_leaves_the_old_file(workspace, capsys):
    capture_attention.main()
    before = paths.STATISTICS.read_bytes()
    questions = pd.read_parquet("data/scenes/evaluation.parquet")
    broken = {"bytes": b"not an image", "path": None}
    Dataset.from_dict(
        {**questions.drop(columns="image").to_dict("list"), "image": [broken] * 10},
        features=Features(
            {
                **{name: Value("string") for name in ("id", "question", "answer", "type")},
                "boxes": Sequence(Sequence(Value("float64"))),
                "image": {"bytes": Value("binary"), "path": Value("string")},
            }
        ),
    ).to_parquet("data/scenes/evaluation.parquet")
    with pytest.raises(SystemExit):
        capture_attention.main()
    assert "image" in capsys.readouterr().err
    assert paths.STATISTICS.read_bytes() == before
    assert [path.name for path in Path("results/attention").iterdir()] == ["statistics.npz"]


def test_statistics_without_a_capture(workspace, capsys):
    with pytest.raises(SystemExit):
        attention_statistics.main()
    assert "dvc repro capture_attention" in capsys.readouterr().err
