"""Scores on the unpruned model are those by which the methods choose; kept tokens are compared at one budget."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pruning
from experiments import score_correlation
from experiments.asking import answers, benchmarks, models
from experiments.asking.evidence import evidence_tokens
from experiments.parameters.load import Parameters, load_parameters
from tests.experiments import workspace

METHODS = {"full": {}, "random": {"seed": 0}, "fastv": {"k": 2}, "pyramiddrop": {}, "vtw": {}}
QUESTIONS, KEPT = 8, 9


def prediction(kept: list[dict]) -> pd.DataFrame:
    row = {"visual_tokens": 4, "visual_tokens_per_layer": [4, 4], "kept": kept}
    return pd.DataFrame([row | {"id": f"q{number}"} for number in range(3)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = workspace.make(
        tmp_path_factory.mktemp("scores"), QUESTIONS * 3 // 2, budgets=[1.0, 0.5, 0.25], methods=METHODS
    )
    workspace.write_predictions(folder, "full", {1.0: prediction([])})
    kept = {"random": (0, [0, 1]), "fastv": (1, []), "pyramiddrop": (0, [1, 2])}
    for name, (layer, indices) in kept.items():
        at_half = prediction([{"layer": layer, "indices": indices}])
        workspace.write_predictions(folder, name, {0.5: at_half, 0.25: prediction([])})
    workspace.write_predictions(folder, "vtw", {0.5: 3.0, 0.25: prediction([])})
    return folder


@pytest.fixture
def parameters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    monkeypatch.chdir(folder)
    parameters = load_parameters()
    settings = parameters.score_correlation.model_copy(update={"questions": QUESTIONS, "batch_size": 4})
    return parameters.model_copy(update={"score_correlation": settings})


def test_a_method_keeps_the_tokens_that_its_score_puts_first(parameters: Parameters) -> None:
    found = score_correlation.scores(parameters)
    assert set(found) >= {"cls", "cls_last_layer", "relevance", "random", "fastv", "pyramiddrop"} and "vtw" not in found
    model, processor = models.load("tiny")
    benchmark = benchmarks.load("scenes", QUESTIONS, 0)
    batches = list(answers.make_batches(processor, model.config, benchmark, 4))
    chosen = {"cls": "fastervlm", "dpp_order": "cdpruner", "diversity_order": "divprune", "random": "random"}
    methods = {score: (pruning.make(name, keep=KEPT), 0) for score, name in chosen.items()}
    methods["fastv"] = (pruning.make("fastv", k=2, r=0.75), 2)
    for score, (method, layer) in methods.items():
        kept = []
        for batch in batches:
            with torch.inference_mode(), method(model) as record:
                model(**batch.inputs)
            kept += [sorted(tokens[layer].tolist()) for tokens in record.kept]
        first = np.sort(np.argsort(-found[score], axis=1, kind="stable")[:, :KEPT], axis=1)
        assert first.tolist() == kept, score
    expected = [evidence_tokens(question["boxes"], 6, 6) for batch in batches for question in batch.questions]
    np.testing.assert_array_equal(found["evidence"], np.stack(expected))


def test_table_of_both_measures_at_the_budget(parameters: Parameters) -> None:
    rows = score_correlation.table(parameters).set_index(["measure", "first", "second"]).sort_index()
    assert rows.loc["spearman", "n"].max() == QUESTIONS and rows.loc["spearman", "mean"].abs().max() <= 1
    overlap = rows.loc["overlap"]
    assert overlap.loc[("random", "pyramiddrop"), "mean"] == pytest.approx(1 / 3, abs=1e-4)
    # All four tokens in one of two layers: half of two tokens over two whole ones and half of two others.
    assert overlap.loc[("random", "fastv"), "mean"] == pytest.approx(1 / 3, abs=1e-4)
    assert overlap["n"].unique().tolist() == [3] and overlap["budget"].unique().tolist() == [0.5]
    assert "vtw" not in overlap.index.get_level_values("second"), "it does not reach the budget"


def test_a_budget_that_was_not_evaluated_is_refused(parameters: Parameters) -> None:
    settings = parameters.score_correlation.model_copy(update={"budget": 0.3})
    with pytest.raises(ValueError, match=r"no two methods were evaluated at 0.3; take one of evaluate's"):
        score_correlation.table(parameters.model_copy(update={"score_correlation": settings}))
