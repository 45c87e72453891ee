"""The table of a recipe, of made-up answers and scores whose numbers are known."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from experiments.benchmarking import scored, stored, table
from experiments.benchmarking.recipe import Recipe
from experiments.recorded.cells import write_table
from pruning.models import flops
from tests.benchmarking.tiny_deep import save_llava

ROOT = Path(__file__).parents[2]
RECIPE = {
    "title": "A trial",
    "departures": ["Made up."],
    "model": "llava-1.5-7b",
    "benchmarks": {"gqa": None, "textvqa_val": None},
    "methods": {"full": None, "vispruner": {"tokens": [64]}, "visionzip": {"tokens": [64]}},
    "batch_size": 2,
    "max_new_tokens": 8,
    "flops": "vispruner",
    "published": {"file": "relative_accuracy", "metric": "relative to full (%)"},
}
PARAMETERS = {
    "full": {},
    "vispruner": {"keep": 64, "important_ratio": 0.5},
    "visionzip": {"dominant": 54, "contextual": 10},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("model"))


def store(out: Path, method: str, benchmark: str, scores: list[float | None], **depends_on: Any) -> stored.Run:
    """A run with these scores; without one the image was out of reach."""
    setting, keep = ("full", 576) if method == "full" else ("tokens-64", 64)
    keys = {"model": "llava-1.5-7b", "benchmark": benchmark, "method": method, "setting": setting}
    counted = "" if method == "full" else "entering"
    run = stored.make(out, keys, 1, len(scores), depends_on, counted=counted)
    rows = [
        {
            "row": row,
            "id": str(row),
            "type": "all",
            "prediction": None if score is None else "x",
            "reason": "too small" if score is None else None,
            "parameters": None if score is None else json.dumps(PARAMETERS[method]),
            "text_tokens": 20,
            "images": "[1]",
            "visual_tokens": 576,
            "visual_tokens_per_layer": [keep] * 32,
        }
        for row, score in enumerate(scores)
    ]
    write_table(run.part(0), pa.Table.from_pylist(rows, schema=stored.SCHEMA))
    read = [scored.unscored(row | {"answer": "x"}) | {"score": score} for row, score in zip(rows, scores, strict=True)]
    scored.write(out, run, read, {"scorer": "by hand", "totals": {}})
    return run


@pytest.fixture
def out(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)  # data/published
    (tmp_path / "models").mkdir()
    (tmp_path / "models/llava-1.5-7b").symlink_to(config)
    store(tmp_path, "full", "gqa", [1.0] * 8 + [0.0] * 2)
    store(tmp_path, "full", "textvqa_val", [1.0, 0.6, 0.9, 0.3, 0.7])
    store(tmp_path, "vispruner", "gqa", [1.0] * 6 + [0.0] * 4)
    store(tmp_path, "vispruner", "textvqa_val", [1.0, 0.6, 0.3, 0.3, 0.6])
    store(tmp_path, "visionzip", "gqa", [1.0] * 5 + [0.0] * 5)
    store(tmp_path, "visionzip", "textvqa_val", [0.6, 0.3, None, 0.0, 0.0])
    return tmp_path


def rows_of(out: Path, name: str = "trial") -> dict[str, dict[str, str]]:
    shown = pd.read_csv(out / f"tables/{name}/table.csv", dtype=str, keep_default_na=False)
    return {row["method"]: row for row in shown.to_dict("records")}


def test_the_table(out: Path) -> None:
    notes = table.write(Recipe.model_validate(RECIPE), "trial", out)
    rows = rows_of(out)
    assert notes == []
    assert rows["full"]["gqa"].startswith("80.0 (") and rows["full"]["textvqa_val"].startswith("70.0 (")
    assert rows["full"]["mean, % of full"] == "100.0" and rows["full"]["mean"] == "75.0"
    # 60 of 80 and 56 of 70 percent: 75 and 80, mean 77.5.
    assert rows["vispruner"]["mean, % of full"] == "77.5"
    assert rows["vispruner"]["published: relative to full (%)"] == "96.6"
    assert rows["vispruner"]["setting"] == "tokens-64 (entering)"
    assert rows["vispruner"]["mean visual tokens"] == "64.0"
    text = (out / "tables/trial/table.md").read_text()
    assert "Made up." in text and "data/published/relative_accuracy.csv, and were not measured here" in text


def test_a_cell_that_lacks_questions_says_so_and_gives_no_mean(out: Path) -> None:
    table.write(Recipe.model_validate(RECIPE), "trial", out)
    row = rows_of(out)["visionzip"]
    assert row["textvqa_val"].endswith(", 4 of 5") and row["mean, % of full"] == row["mean"] == "–"
    numbers = pd.read_csv(out / "tables/trial/metrics.csv")
    cell = numbers[(numbers["method"] == "visionzip") & (numbers["benchmark"] == "textvqa_val")].iloc[0]
    assert (cell["n"], cell["questions"], cell["reason"]) == (4, 5, "too small")


def test_both_ways_to_count_flops(out: Path, config: Path) -> None:
    from transformers import AutoConfig

    table.write(Recipe.model_validate(RECIPE), "trial", out)
    numbers = pd.read_csv(out / "tables/trial/metrics.csv").set_index(["benchmark", "method"])
    loaded = AutoConfig.from_pretrained(config)
    exact = flops.count(loaded, [576] * 32, 20)
    paper = flops.published(loaded, [576] * 32, 20, [1], "vispruner")
    assert numbers.loc[("gqa", "full"), "tflops"] == pytest.approx(exact.total / 1e12)
    assert numbers.loc[("gqa", "full"), "tflops_vispruner"] == pytest.approx(paper.total / 1e12)
    assert numbers.loc[("gqa", "vispruner"), "tflops"] < 0.5 * exact.total / 1e12
    assert "TFLOPs as vispruner counts" in rows_of(out)["full"]


def test_tests_pair_the_questions_that_both_answered(out: Path) -> None:
    table.write(Recipe.model_validate(RECIPE), "trial", out)
    pairs = pd.read_csv(out / "tables/trial/tests.csv")
    gqa = pairs[pairs["benchmark"] == "gqa"].set_index(["first", "second"])
    assert gqa.loc[("vispruner", "full"), "test"] == "McNemar"
    assert gqa.loc[("vispruner", "full"), "difference"] == pytest.approx(-0.2)
    assert gqa.loc[("vispruner", "full"), "p"] == pytest.approx(0.5)  # two questions, both one way
    text = pairs[pairs["benchmark"] == "textvqa_val"].set_index(["first", "second"])
    assert (
        text.loc[("vispruner", "visionzip"), "test"] == "permutation" and text.loc[("vispruner", "visionzip"), "n"] == 4
    )
    assert text.loc[("vispruner", "visionzip"), "p"] == pytest.approx(2 / 16)  # four differences of one sign
    assert (text["p_holm"] >= text["p"]).all()


def test_another_run_of_a_cell_is_kept_and_the_newest_shown(out: Path) -> None:
    store(out, "vispruner", "gqa", [1.0] * 10, other=True)
    notes = table.write(Recipe.model_validate(RECIPE), "trial", out)
    assert rows_of(out)["vispruner"]["gqa"].startswith("100.0")
    assert len(notes) == 1 and "is older and not shown" in notes[0]
    assert len(list((out / "answers").glob("*/benchmark=gqa/method=vispruner/*/*"))) == 2


def test_what_is_missing_is_noted(out: Path) -> None:
    wider = RECIPE | {"benchmarks": {"gqa": None, "textvqa_val": None, "pope": "f1_mean_of_splits_llava"}}
    notes = table.write(Recipe.model_validate(wider), "trial", out)
    assert "llava-1.5-7b/pope/full/full: not answered" in notes
    assert rows_of(out)["full"]["pope (f1_mean_of_splits_llava)"] == "–"
    assert rows_of(out)["full"]["mean, % of full"] == "–", "a mean over other benchmarks than the recipe's"


def test_nothing_to_show_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(table.TableError, match="answer and score the recipe first"):
        table.write(Recipe.model_validate(RECIPE), "trial", tmp_path)
