"""The GPU report, tried out with tiny models: all rows, in time, and errors as rows. No time is tested."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.figures.elsewhere import gpu_report as figure
from analysis.figures.shared import style
from experiments import gpu_report
from experiments.gpu import correctness, full_size, methods
from experiments.gpu.output import Deadline
from experiments.gpu.shapes import SHAPES, llava
from experiments.gpu.subjects import subject
from pruning.methods.vispruner import VisPruner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def timed() -> pd.DataFrame:
    """The rows of every tiny model after two rounds."""
    tables = []
    for name in SHAPES:
        with torch.inference_mode():
            report = full_size.Report(SHAPES[name](True), CPU, torch.float32)
        report.measure(Deadline(60), lambda: None, repeats=2)
        tables.append(pd.DataFrame(report.rows(), columns=full_size.COLUMNS))
        report.close()
    return pd.concat(tables).assign(device="a CPU")


def test_every_method_and_budget_has_a_row_beside_full_and_short(timed: pd.DataFrame) -> None:
    for name, shape in SHAPES.items():
        rows, made = timed[timed["model"] == name], shape(True)
        expected = [*methods.NAMES] if made.glimpse else [method for method in methods.NAMES if method != "glimpse"]
        for keep in made.keeps:
            assert rows.loc[rows["keep"] == keep, "method"].tolist() == ["native_short", *expected]
    failed = timed[timed["error"] != ""]
    assert failed["error"].str.startswith("InfeasibleBudget").all() and failed["prefill_ms"].isna().all()
    assert set(failed["method"]) <= {"sequential_prune", "dart"}


def test_tokens_cache_and_flops_are_those_of_the_budget(timed: pd.DataFrame) -> None:
    rows = timed[(timed["model"] == "llava-1.5-7b") & (timed["error"] == "")]
    full = rows[rows["method"] == "full"].iloc[0]
    assert full["mean_visual_tokens"] == 36 and full["prefill_to_full"] == 1
    short = rows[(rows["method"] == "native_short") & (rows["keep"] == 12)].iloc[0]
    vispruner = rows[(rows["method"] == "vispruner") & (rows["keep"] == 12)].iloc[0]
    assert vispruner["mean_visual_tokens"] == short["mean_visual_tokens"] == 12
    # Keys and values of 24 tokens fewer in 6 layers, 2 heads of 8 float32.
    for row in (short, vispruner):
        assert full["kv_cache_mb"] - row["kv_cache_mb"] == pytest.approx(24 * 6 * 2 * 2 * 8 * 4 / 2**20)
    assert vispruner["prefill_tflops"] == pytest.approx(short["prefill_tflops"] + vispruner["choosing_tflops"])
    assert short["prefill_tflops"] < full["prefill_tflops"]


def test_a_method_that_fails_is_a_row_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: VisPruner, seen: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(VisPruner, "select", fails)
    with torch.inference_mode():
        report = full_size.Report(llava(True), CPU, torch.float32)
    report.measure(Deadline(60), lambda: None, repeats=1)
    rows = pd.DataFrame(report.rows()).set_index(["keep", "method"])
    assert rows.loc[(12, "vispruner"), "error"] == "RuntimeError: no kernel image is available"
    assert rows.loc[(12, "fastv"), "error"] == "" and rows.loc[(12, "fastv"), "prefill_ms"] > 0


def test_pruned_is_masked_in_float32_and_kept_is_what_the_reference_keeps() -> None:
    one = subject("qwen2.5-vl-7b")
    setting = correctness.Setting(one, CPU, torch.float32, "sdpa")
    rows = pd.DataFrame(setting.rows(Deadline(60), correctness.references(one)), columns=correctness.COLUMNS)
    assert set(rows["method"]) == set(methods.NAMES) and rows["error"].isna().all()
    assert (rows["jaccard_min"] == 1).all()
    compared = rows[rows["oracle"] == "masked"]
    assert compared["within"].all() and (compared["relative_difference"] < 1e-5).all()
    assert set(rows[rows["oracle"] == "merges"]["method"]) == set(correctness.MERGING)


def test_a_method_that_keeps_other_tokens_is_found() -> None:
    kept = [[{0, 1}, {0, 1}], [{2}, {2}]]
    assert correctness.agreement(kept, kept) == {"jaccard_mean": 1, "jaccard_min": 1}
    found = correctness.agreement(kept, [[{0, 1}, {0, 2}], [{2}, {2}]])
    assert found["jaccard_min"] == pytest.approx(1 / 3) and found["jaccard_mean"] == pytest.approx((3 + 1 / 3) / 4)


def test_without_time_it_writes_empty_tables_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu_report.main(["--tiny", "--minutes", "0", "--output", str(tmp_path)])
    about = json.loads((tmp_path / "gpu_device.json").read_text())
    assert {one["why"] for one in about["unfinished"]} == {"the time was over"}
    assert "timings of llava-next-7b: the time was over" in capsys.readouterr().out
    for name in ("gpu_correctness", "gpu_report", "gpu_launches"):
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == 0


def test_cut_short_it_keeps_what_it_has(tmp_path: Path) -> None:
    gpu_report.main(["--tiny", "--minutes", "0", "--output", str(tmp_path)])
    assert "jaccard_mean" in pd.read_csv(tmp_path / "gpu_correctness.csv").columns, "a table without rows, not no file"
    about = json.loads((tmp_path / "gpu_device.json").read_text())
    assert about["unfinished"] and about["tiny"] and about["torch"] == torch.__version__


def test_the_figure_draws_what_was_measured(tmp_path: Path, timed: pd.DataFrame) -> None:
    timed.to_csv(tmp_path / "gpu_report.csv", index=False)
    with style.applied():
        drawn = figure.draw(tmp_path)
        style.save(drawn, tmp_path, "gpu_report")
    assert (tmp_path / "gpu_report.png").stat().st_size > 0
    assert [axes.get_title().split(",")[0] for axes in drawn.axes] == list(SHAPES)
    panel = drawn.axes[0]
    rows = timed[(timed["model"] == "llava-next-7b") & timed["prefill_ms"].notna()].set_index("method")
    points = next(line for line in panel.lines if len(line.get_xdata()) == len(rows) - 2)
    labels = [label.get_text() for label in panel.get_yticklabels()]
    place = next(y for x, y in points.get_xydata() if x == pytest.approx(rows.loc["vispruner", "prefill_ms"]))
    assert labels[round(place)] == "VisPruner"
    assert panel.lines[0].get_xdata()[0] == pytest.approx(rows.loc["full", "prefill_ms"])
