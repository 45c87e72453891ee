"""The short tables of README.md and docs/: written between their marks from the results, and not behind them."""

from pathlib import Path

import pandas as pd
import pytest

from experiments import readme_table

ROOT = Path(__file__).parents[2]
BUDGETS = (0.9, 0.5, 0.4, 0.3, 0.2, 0.1)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """accuracy.csv of three methods at six budgets; fastv reaches none below a half, `mine` is not shown."""
    rows = [{"method": "full", "budget": 1.0, "feasible": True, "accuracy": 0.97}]
    for method in ("fastv", "mine", "random"):
        for budget in BUDGETS:
            reached = method != "fastv" or budget >= 0.5
            rows.append(
                {"method": method, "budget": budget, "feasible": reached, "accuracy": budget if reached else None}
            )
    table = pd.DataFrame(rows).assign(model="tiny", benchmark="scenes", type="all", n=40)
    table["n"] = table["n"].where(table["feasible"], 0)
    table["ci_low"], table["ci_high"] = table["accuracy"] - 0.02, table["accuracy"] + 0.03
    other = table.assign(type="reading", accuracy=0.0)
    pd.concat([other, table]).to_csv(tmp_path / "accuracy.csv", index=False)
    return tmp_path


def test_the_short_table_has_plain_numbers_of_the_lowest_budgets(results: Path) -> None:
    lines = readme_table.accuracy(results).splitlines()
    assert lines[0] == "| method | 50.0 % | 40.0 % | 30.0 % | 20.0 % | 10.0 % |"
    assert lines[2:4] == ["| `random` | 50.0 | 40.0 | 30.0 | 20.0 | 10.0 |", "| `fastv` | 50.0 | – | – | – | – |"]
    assert "tiny on scenes, n = 40 questions; unpruned 97.0. 95 % intervals reach at most 3.0 points" in lines[-1]


def test_only_what_lies_between_the_marks_changes(results: Path) -> None:
    page = "# Title\n\n<!-- table: accuracy -->\nold\n<!-- end of table -->\n\nText.\n"
    filled = readme_table.filled(page, results)
    assert filled.startswith("# Title\n\n<!-- table: accuracy -->\n\n| method |") and "old" not in filled
    assert filled.endswith("\n\n<!-- end of table -->\n\nText.\n")
    assert readme_table.filled(filled, results) == filled


def test_an_unknown_table_is_refused(results: Path) -> None:
    with pytest.raises(
        ValueError, match="unknown table 'nothing'. Tables: accuracy, question_types, glimpse, selection"
    ):
        readme_table.filled("<!-- table: nothing -->\n<!-- end of table -->", results)


def test_a_page_behind_the_results_is_named_and_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    (results / "accuracy.csv").rename("results/accuracy.csv")
    Path("README.md").write_text("<!-- table: accuracy -->\n<!-- end of table -->\n")
    with pytest.raises(SystemExit) as stop:
        readme_table.main(["--check"])
    assert stop.value.code == 1 and "README.md to be changed" in capsys.readouterr().err
    readme_table.main([])
    readme_table.main(["--check"])
    assert "| `random` | 50.0 |" in Path("README.md").read_text()


def test_no_committed_page_is_behind_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    marked = {
        name for page in readme_table.pages() for _, name, _ in readme_table.MARKED.findall(page.read_text("utf-8"))
    }
    assert marked == readme_table.TABLES.keys()
    readme_table.main(["--check"])
