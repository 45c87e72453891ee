"""What latency.csv holds; how long anything takes is not tested."""

from pathlib import Path

import pytest
import torch
import transformers

from experiments import latency
from experiments.parameters.load import load_parameters
from tests.experiments import workspace


def test_every_method_and_budget_it_reaches_beside_the_full_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {"full": {}, "oracle": {"seed": 0}, "fastv": {"k": 2}}
    monkeypatch.chdir(workspace.make(tmp_path, methods=methods))
    parameters = load_parameters()
    settings = {"batch_size": 3, "repeats": 2, "warm_ups": 1, "budgets": [1.0, 0.5, 0.25]}
    parameters = parameters.model_copy(update={"latency": parameters.latency.model_copy(update=settings)})
    table = latency.table(parameters)
    cells = table[["method", "budget"]].to_numpy().tolist()
    assert cells == [["full", 1.0], ["oracle", 0.5], ["oracle", 0.25], ["fastv", 0.5]], "fastv does not reach a quarter"
    assert (table["ratio_low"] <= table["ratio"]).all() and (table["ratio"] <= table["ratio_high"]).all()
    assert (table[["seconds", "full_seconds"]] > 0).all(axis=None)
    row = table.iloc[0]
    assert (row["batch_size"], row["repeats"], row["visual_tokens"]) == (3, 2, 36)
    assert (row["dtype"], row["threads"]) == ("float32", torch.get_num_threads())
    assert (row["torch"], row["transformers"]) == (torch.__version__, transformers.__version__) and row["device"]
