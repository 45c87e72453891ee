"""Tables for readers: the same cells in CSV, Markdown and LaTeX, and LaTeX that would compile."""

import re
from pathlib import Path

import pandas as pd
import pytest

from experiments import table_formats, tables
from experiments.table_formats import Measured


def accuracy(methods: dict[str, list[float | None]], budgets: tuple[float, ...] = (0.5, 0.25)) -> pd.DataFrame:
    """Rows of accuracy.csv: accuracies by method and budget, None where the method does not reach it."""
    rows = [
        {"model": "tiny", "benchmark": "scenes", "type": "all", "method": method, "budget": budget}
        | {"feasible": value is not None, "floor": 12.3, "n": 40 if value is not None else 0}
        | {"accuracy": value, "ci_low": (value or 0) - 0.1, "ci_high": (value or 0) + 0.1}
        for method, values in methods.items()
        for budget, value in zip(budgets, values, strict=False)
    ]
    return pd.DataFrame(rows)


METHODS = {"oracle": [0.9, 0.9], "fastv": [0.6, None], "prumerge_plus": [0.6, 0.55], "random": [0.5, 0.4]}


def check_latex(text: str) -> None:
    """Balanced environments and braces, booktabs rules in order, equally many cells, nothing left unescaped."""
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


def test_accuracy_in_three_formats(tmp_path: Path) -> None:
    table = tables.accuracy_table(accuracy(METHODS))
    table_formats.write(tmp_path / "accuracy", table, tables.accuracy_caption(accuracy(METHODS), 0.9))
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


@pytest.mark.parametrize("rows", [3, 100])
def test_a_table_too_long_for_a_page_may_break(rows: int) -> None:
    table = pd.DataFrame({"name": [f"a_{row} & 5%" for row in range(rows)], "x_1": [Measured(1, 0, 2)] * rows})
    text = table_formats.latex(table, "100% of a_b & c", "long_table")
    check_latex(text)
    assert (r"\begin{longtable}" in text) == (rows == 100)
    assert r"a\_0 \& 5\%" in text and r"100\% of a\_b \& c" in text and r"\label{tab:long-table}" in text
