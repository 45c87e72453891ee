"""What efficiency.csv holds; how long anything takes is not tested."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import efficiency
from experiments.parameters.load import load_parameters
from pruning.glimpse import checkpoint
from tests.experiments import workspace
from tests.pruning.glimpse.tiny_glimpse import tiny_modules
from tests.tiny_models import tiny_llava


def test_measured_beside_the_full_model_at_the_share_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.make(tmp_path))
    checkpoint.save(tiny_modules(tiny_llava()[0]), "modules")
    methods = {"full": {}, "glimpse": {"path": "modules", "fixed_remain_ratio": 0.25}, "vispruner": {"keep": 9}}
    settings = {"batch_size": 2, "repeats": 2, "warm_ups": 0, "new_tokens": 4, "model": "tiny"}
    settings["methods"] = methods
    parameters = load_parameters()
    parameters = parameters.model_copy(update={"efficiency": parameters.efficiency.model_copy(update=settings)})
    table = efficiency.table(parameters).set_index("method")
    assert table.index.tolist() == ["full", "glimpse", "vispruner"]
    assert json.loads(table.loc["glimpse", "parameters"]) == methods["glimpse"]
    # Glimpse's token leaves behind layer 2 of 6; VisPruner's before the first.
    assert table["mean_visual_tokens"].tolist() == [36, (3 * 36 + 3 * 9) / 6, 9]
    assert table["last_visual_tokens"].tolist() == [36, 9, 9]
    for measure in ("prefill", "decode", "kv_cache"):
        ends = table[[f"{measure}_ratio_low", f"{measure}_ratio", f"{measure}_ratio_high"]].to_numpy()
        assert (ends > 0).all() and (np.diff(ends, axis=1) >= 0).all()
    # Both leave 27 of 36 visual tokens out of every layer's cache: two heads of 8 floats, keys and values, two rows.
    saved = table["full_kv_cache_mb"] - table["kv_cache_mb"]
    per_token = 6 * 2 * 2 * 2 * 8 * 4 / 2**20
    np.testing.assert_allclose(saved, [0, 27 * per_token, 27 * per_token], rtol=1e-6)
    assert table["kv_cache_ratio"]["full"] == 1
    assert table["peak_memory_mb"].isna().all() != torch.cuda.is_available(), "memory is a GPU's; on a CPU it is empty"
    assert (table["threads"] == torch.get_num_threads()).all() and (table["batch_size"] == 2).all()
