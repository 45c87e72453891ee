"""From predictions to flops.csv, accuracy.csv, metrics and the table of the README."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from experiments import accuracy, evaluate, flops
from experiments.asking import models
from experiments.parameters.load import Parameters, load_parameters
from pruning.models import flops as formulas
from tests.experiments import workspace


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every method has answered; half of `random`'s answers at 0.5 are made correct."""
    folder = workspace.make(tmp_path_factory.mktemp("evaluated"), questions=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        parameters = load_parameters()
        evaluate.write(parameters, [])
        path = folder / "results/predictions/random.parquet"
        table = pq.read_table(path).to_pandas()
        table["correct"] = (table["budget"] == 0.5) & (np.arange(len(table)) % 4 < 2)
        table.to_parquet(path)
        flops.RESULT.write_text(flops.table(parameters).to_csv(index=False))
    return folder


@pytest.fixture
def parameters(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    monkeypatch.chdir(evaluated)
    return load_parameters()


def test_flops_are_the_mean_over_the_questions(parameters: Parameters) -> None:
    rows = pd.read_csv(flops.RESULT).set_index(["method", "budget"])
    config = models.load("tiny")[0].config
    predictions = pq.read_table("results/predictions/fastv.parquet").to_pandas().query("budget == 0.5")
    assert predictions["text_tokens"].nunique() == 2
    expected = [
        formulas.count(config, row.visual_tokens_per_layer.tolist(), row.text_tokens)
        for row in predictions.itertuples()
    ]
    row = rows.loc[("fastv", 0.5)]
    assert row["decoder"] == round(np.mean([sample.decoder for sample in expected]))
    assert row["per_decoded_token"] == round(np.mean([sample.per_decoded_token for sample in expected]))
    assert row["total"] == pytest.approx(row[["vision", "projector", "decoder", "choosing"]].sum(), abs=2)
    assert row["choosing"] > 0 == rows.loc[("random", 0.5), "choosing"]
    assert rows.loc[("full", 1.0), "ratio_to_full"] == 1
    assert rows.loc[("random", 0.25), "ratio_to_full"] < rows.loc[("random", 0.5), "ratio_to_full"] < 1
    assert ("fastv", 0.25) not in rows.index


def test_accuracy_table(parameters: Parameters) -> None:
    table = accuracy.table(parameters)
    assert list(table.columns) == [
        "model", "benchmark", "type", "method", "role", "parameters", "budget", "feasible", "floor",
        "mean_visual_tokens", "visual_tokens_per_layer", "flops", "n", "accuracy", "ci_low", "ci_high",
    ]  # fmt: skip
    assert table["type"].unique().tolist() == ["all", "attribute", "counting"]
    row = table.set_index(["method", "budget", "type"]).loc[("random", 0.5, "all")]
    assert row["n"] == 40 and row["accuracy"] == 0.5
    assert 0.3 < row["ci_low"] < 0.5 < row["ci_high"] < 0.7
    assert row["mean_visual_tokens"] == 18 and json.loads(row["visual_tokens_per_layer"]) == [18] * 6
    assert json.loads(row["parameters"]) == {"keep": 18, "seed": 0}
    assert row["flops"] == pd.read_csv(flops.RESULT).set_index(["method", "budget"]).loc[("random", 0.5), "total"]
    kinds = table[(table["method"] == "random") & (table["budget"] == 0.5) & (table["type"] != "all")]
    assert kinds["n"].tolist() == [20, 20]
    assert (kinds["accuracy"] * kinds["n"]).sum() == 20


def test_infeasible_budget_has_its_floor_and_no_accuracy(parameters: Parameters) -> None:
    table = accuracy.table(parameters).set_index(["method", "budget", "type"])
    row = table.loc[("fastv", 0.25, "all")]
    assert not row["feasible"] and row["n"] == 0 and row["floor"] == pytest.approx(12, abs=1)
    assert row[["mean_visual_tokens", "flops", "accuracy", "ci_low", "ci_high"]].isna().all()


def test_metrics_and_plot_are_the_overall_accuracies(parameters: Parameters) -> None:
    table = accuracy.table(parameters)
    assert accuracy.metrics(table)["all"]["random"] == {"50.0%": 0.5, "25.0%": 0.0}
    assert list(accuracy.metrics(table)["all"]["fastv"]) == ["50.0%"]
    plot = accuracy.by_budget(table)
    assert plot["method"].tolist() == ["full", "random", "random", "fastv"]
    assert plot.set_index(["method", "budget"]).loc[("random", 0.5), "accuracy"] == 0.5


def test_files_of_methods_no_longer_asked_for_are_left_out(parameters: Parameters) -> None:
    fewer = parameters.evaluate.model_copy(
        update={"methods": {"full": {}, "fastv": parameters.evaluate.methods["fastv"]}}
    )
    table = accuracy.table(parameters.model_copy(update={"evaluate": fewer}))
    assert table["method"].unique().tolist() == ["full", "fastv"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"full": {}, "grid": {}}}, "grid has not been evaluated: run `dvc repro evaluate`"),
        ({"budgets": [1.0, 0.75]}, r"not \[0.75\]: run `dvc repro evaluate`"),
    ],
)
def test_predictions_that_do_not_fit_the_parameters_are_refused(
    parameters: Parameters, changes: dict, message: str
) -> None:
    changed = parameters.model_copy(update={"evaluate": parameters.evaluate.model_copy(update=changes)})
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        accuracy.table(changed)
