"""Tables for readers: the same cells in CSV, Markdown and LaTeX, and LaTeX that would compile."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from experiments import tables
from experiments.parameters.sections import Evaluate
from experiments.recorded import predictions
from experiments.reports import budget, formats, published
from experiments.reports.formats import Measured
from pruning import registry


def accuracy(methods: dict[str, list[float | None]], budgets: tuple[float, ...] = (0.5, 0.25)) -> pd.DataFrame:
    """Rows of accuracy.csv: accuracies by method and budget, None where the method does not reach it."""
    rows = [
        {"model": "tiny", "benchmark": "scenes", "type": "all", "method": method, "role": registry.get(method).role}
        | {"budget": budget}
        | {"feasible": value is not None, "floor": 12.3, "n": 40 if value is not None else 0}
        | {"accuracy": value, "ci_low": (value or 0) - 0.1, "ci_high": (value or 0) + 0.1}
        for method, values in methods.items()
        for budget, value in zip(budgets, values, strict=False)
    ]
    return pd.DataFrame(rows)


METHODS = {"oracle": [0.9, 0.9], "fastv": [0.6, None], "prumerge_plus": [0.6, 0.55], "random": [0.5, 0.4]}


def check_latex(text: str) -> None:
    """One table: balanced environments and braces, booktabs rules in order, equal rows, nothing left unescaped."""
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    assert text.count("{") == text.count("}")
    rules = re.findall(r"\\(toprule|midrule|bottomrule)", text)
    assert rules[0] == "toprule" and "midrule" in rules and rules[-1] == "bottomrule"
    assert "\\hline" not in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "caption" not in line and "&" in line]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert not re.search(r"(?<!\\)[%_#]", text), "a special character without its backslash"
    assert not re.search(r"^\s*\[", text, re.MULTILINE), "after a row's end, a bracket would be read as a length"


def test_accuracy_in_three_formats(tmp_path: Path) -> None:
    table = tables.accuracy_table(accuracy(METHODS))
    formats.write(tmp_path / "accuracy", table, tables.accuracy_caption(accuracy(METHODS), 0.9))
    plain = pd.read_csv(tmp_path / "accuracy.csv", keep_default_na=False)
    assert plain.columns.tolist() == ["method", "50.0%", "25.0%"]
    assert plain["method"].tolist() == ["random", "oracle", "fastv", "prumerge_plus"]
    assert plain["25.0%"].tolist()[1:] == ["90.0 (80.0 to 100.0)", "floor 12.3", "55.0 (45.0 to 65.0)"]
    shown = (tmp_path / "accuracy.md").read_text()
    assert "n = 40 questions" in shown and "90% bootstrap interval" in shown
    cells = [cell.strip() for cell in shown.splitlines()[-3].split("|")]
    assert cells[1:4] == ["prumerge_plus", "**60.0** <sub>50.0 to 70.0</sub>", "**55.0** <sub>45.0 to 65.0</sub>"]
    text = (tmp_path / "accuracy.tex").read_text()
    check_latex(text)
    assert r"prumerge\_plus & \textbf{60.0} {\scriptsize 50.0--70.0} & \textbf{55.0}" in text
    assert r"& 50.0\% & 25.0\% \\" in text and r"its 90\% bootstrap" in text


def test_the_best_method_is_bold_wherever_it_is_shared_and_bounds_never_are() -> None:
    table = tables.accuracy_table(accuracy(METHODS)).set_index("method")
    assert {name for name, cell in table["50.0%"].items() if cell.best} == {"fastv", "prumerge_plus"}
    assert not table.loc["oracle", "25.0%"].best
    inside = tables.accuracy_table(accuracy(METHODS | {"oracle_inside": [0.95, 0.95]})).set_index("method")
    assert inside.loc["fastv", "50.0%"].best, "an oracle inside the decoder is no rival either"


def test_without_questions_of_several_looks_their_table_has_no_row_and_says_so(tmp_path: Path) -> None:
    table = tables.accuracy_table(accuracy(METHODS), "several_looks")
    caption = tables.accuracy_caption(accuracy(METHODS), 0.9, "several_looks")
    formats.write(tmp_path / "accuracy_several_looks", table, caption)
    assert (tmp_path / "accuracy_several_looks.csv").read_text() == "method\n"
    shown = (tmp_path / "accuracy_several_looks.md").read_text()
    assert "scenes has no questions that take several looks." in shown and "random" not in shown
    assert r"\bottomrule" in (tmp_path / "accuracy_several_looks.tex").read_text()


@pytest.mark.parametrize("rows", [3, 100])
def test_a_table_too_long_for_a_page_may_break(rows: int) -> None:
    table = pd.DataFrame({"name": [f"a_{row} & 5%" for row in range(rows)], "x_1": [Measured(1, 0, 2)] * rows})
    text = formats.latex(table, "100% of a_b & c", "long_table")
    check_latex(text)
    assert (r"\begin{longtable}" in text) == (rows == 100)
    assert r"a\_0 \& 5\%" in text and r"100\% of a\_b \& c" in text and r"\label{tab:long-table}" in text


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Predictions of two questions of different sizes by two methods; fastv does not reach the lower budget."""
    monkeypatch.chdir(tmp_path)
    predictions.PREDICTIONS.mkdir(parents=True)
    per_layer = {"full": {1.0: [[20, 20], [40, 40]]}, "fastv": {0.5: [[20, 2], [40, 4]], 0.1: []}}
    for method, cells in per_layer.items():
        rows = [
            {"budget": budget, "visual_tokens": layers[0], "visual_tokens_per_layer": layers}
            | {"parameters": json.dumps({} if method == "full" else {"k": 1, "r": 1 - layers[-1] / layers[0]})}
            for budget, questions in cells.items()
            for layers in questions
        ]
        pd.DataFrame(rows).to_parquet(predictions.PREDICTIONS / f"{method}.parquet")
        facts = {"role": registry.get(method).role, "budget_parameter": registry.get(method).budget_parameter}
        described = [facts | {"budget": b, "feasible": bool(q), "floor": None if q else 15.5} for b, q in cells.items()]
        (predictions.PREDICTIONS / f"{method}.json").write_text(json.dumps(described))
    return Evaluate(
        benchmark="scenes", questions=0, seed=0, batch_size=1, max_new_tokens=1, budgets=[1.0, 0.5, 0.1],
        methods={"full": {}, "fastv": {"k": 1}},
    )  # fmt: skip


def test_budget_table_shows_what_was_measured_and_the_worst_deviation(settings: Evaluate) -> None:
    numbers = budget.numbers(settings)
    row = numbers.set_index(["method", "budget"]).loc[("fastv", 0.5)]
    assert row[["asked", "measured", "lowest", "highest"]].tolist() == [15, 16.5, 11, 22]
    assert row["deviation"] == 1.5 and row["deviation_share"] == pytest.approx(0.1)
    assert json.loads(row["visual_tokens_per_layer"]) == [30, 3]
    assert (row["parameter"], row["value"]) == ("r", "0.9")
    infeasible = numbers.set_index(["method", "budget"]).loc[("fastv", 0.1)]
    assert infeasible["floor"] == 15.5 and infeasible["asked"] == 3
    assert infeasible[["measured", "lowest", "highest", "value"]].isna().all()
    shown = budget.shown(numbers)
    assert shown.to_dict("list")["by layer"] == ["2 x 30", "30, 3", ""]
    assert shown["setting"].tolist() == ["", "r = 0.9", ""] and shown["floor"].tolist() == ["", "", "15.5"]
    assert budget.caption(numbers).endswith("fastv at 50.0%, 16.5 for 15.0 tokens (+10.0%).")
    check_latex(formats.latex(shown, budget.caption(numbers), "budget"))


def test_published_tables_say_that_they_are_not_ours() -> None:
    text = published.markdown()
    assert text.startswith("# Published numbers (not ours)\n")
    assert re.search(r"\| vispruner +\| 99.6 +\| 96.6 +\| 91.5 +\|", text) and "(arXiv:2412.01818)" in text
    assert "720 and 145 tokens" in text
    environments = re.findall(r"\\begin\{table\}.*?\\end\{table\}\n", published.latex(), re.DOTALL)
    assert len(environments) == len(published.BLOCKS)
    for environment in environments:
        check_latex(environment)
        assert r"\caption{Published numbers (not ours). " in environment


def test_every_file_of_published_values_is_shown() -> None:
    assert {path.stem for path in published.FOLDER.glob("*.csv")} == published.BLOCKS.keys()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("99.6", "about 99", "no number in column value: .'about 99'"),
        ("method,model", "method,models", "has the columns method, models"),
        ("vispruner,LLaVA-1.5-7B,", "visionzip,LLaVA-1.5-7B,", "two values for .'visionzip', '128'"),
    ],
)
def test_published_values_that_cannot_be_shown_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (published.FOLDER / "relative_accuracy.csv").read_text()
    (tmp_path / "relative_accuracy.csv").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        published.read("relative_accuracy", tmp_path)


def test_ours_stand_beside_the_published_in_columns_of_their_own() -> None:
    ours = accuracy({"full": [0.8, None], "vispruner": [0.4, None]}, budgets=(0.222, 0.111))
    table = published.beside_ours(ours).set_index("method")
    assert [name.split(",")[0] for name in table.columns] == ["published"] * 3 + ["ours"] * 3
    assert table.loc["vispruner"].tolist() == ["99.6", "96.6", "91.5", "50.0", "floor 12.3", ""]
    assert table.loc["tome"].tolist()[3:] == [""] * 3
