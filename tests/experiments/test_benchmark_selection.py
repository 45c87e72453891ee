"""The batched choices against the same choices token by token, and what the benchmark writes."""

import pandas as pd
import pytest
import torch

from experiments import benchmark_selection
from experiments.benchmark_selection import Cases, methods_for, save
from experiments.speed.inputs import Inputs, Widths, decoder, untrained_glimpse
from experiments.speed.references import BEFORE, INSIDE, visual_places
from pruning import registry
from pruning.choosing.base import BeforeLLM
from pruning.engine.contract import MergedTokens

TINY = Widths(vision=32, vision_heads=2, vision_layers=4, hidden=64, intermediate=32, heads=4)
KEEP, ROWS, COLUMNS = 24, 8, 9
NAMES = [*BEFORE, *INSIDE]


@pytest.fixture(scope="module")
def inputs():
    made = Inputs(decoder(torch.device("cpu"), torch.float64, TINY), 8, ROWS, COLUMNS)
    yield made
    made.release()


@pytest.mark.parametrize(("name", "keep"), [*((name, KEEP) for name in NAMES), ("visionzip", 4)])
@torch.inference_mode()
def test_a_batch_of_eight_chooses_what_choosing_step_by_step_does(inputs, name, keep):
    method = methods_for([keep], ROWS * COLUMNS, 8, untrained_glimpse(inputs.family))[name, keep]
    if isinstance(method, BeforeLLM):
        chosen = method.select(inputs.observed())
        numbers = chosen.numbers_BT if isinstance(chosen, MergedTokens) else chosen
        kept = BEFORE[name](method, inputs.observed())
        assert numbers.tolist() == kept
        assert len({tuple(row) for row in kept}) > 1, "eight random images do not keep the same tokens"
        return
    stages = list(inputs.observed_layers(method))
    assert stages
    for seen, counts in stages:
        assert visual_places(method.choose(seen, counts), seen) == INSIDE[name](method, seen, counts)


def test_rows_of_other_devices_stay_and_a_case_measured_again_is_replaced(tmp_path):
    path = tmp_path / "benchmark.csv"
    case = dict.fromkeys(benchmark_selection.CASE, "a") | {"visual_tokens": 576, "keep": 64, "batch": 1, "threads": 1}
    save(path, pd.DataFrame([case | {"choosing_ms": 1.5}, case | {"method": "b", "choosing_ms": 2.5}]))
    save(path, pd.DataFrame([case | {"device": "gpu", "choosing_ms": 3.5}, case | {"choosing_ms": 4.5}]))
    rows = pd.read_csv(path)
    assert sorted(rows["choosing_ms"]) == [2.5, 3.5, 4.5]
    with pytest.raises(ValueError, match="other columns"):
        save(path, pd.DataFrame([case]))
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_writes_every_case_and_leaves_the_rows_of_another_device(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cases = Cases(rasters=((4, 6), (6, 6)), keeps=(12, 24), batches=(1, 2), widths=TINY)
    benchmark_selection.main(["--repeats", "1"], cases)
    path = tmp_path / benchmark_selection.RESULT
    first = pd.read_csv(path)
    first.assign(device="another").to_csv(path, index=False)
    benchmark_selection.main(["--repeats", "1", "--quick"], cases)

    rows = pd.read_csv(path)
    assert (rows["device"] == "another").sum() == len(first)
    ours = rows[rows["device"] != "another"]
    names = set(registry.names()) - set(benchmark_selection.NOT_A_CHOICE)
    assert names > {"hiprune", "holov", *NAMES} and not names & {"full", "vscan", "evs"}
    assert set(ours["visual_tokens"]) == {24} and set(ours["keep"]) == {12}, "24 of 24 is no choice"
    assert sorted(ours["method"]) == sorted([*names, *names]), "each once for one image and once for two"
    assert set(first["visual_tokens"]) == {24, 36} and set(first[first["visual_tokens"] == 36]["keep"]) == {12, 24}
    assert (rows["choosing_ms"] > 0).all() and (rows["prefill_ms"] > 0).all()
    stepped = rows[rows["method"].isin(NAMES)]
    assert stepped["same_choice"].all() and (stepped["times_faster"] > 0).all()
    assert set(capsys.readouterr().out.split()) >= names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "nowhere"], "--device nowhere cannot be used here"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--limit", "nan"], "--limit above 0"),
    ],
)
def test_a_bad_option_is_one_clear_error(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        benchmark_selection.main(options)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
