"""Which differences between methods are more than chance, at every budget: `python -m experiments.significance`.

Each pair of methods is tested on the questions that both answered (exact McNemar), and the p-values of a budget are
corrected together (Holm); once over all questions, and once over those that take several looks where there are such.
The unpruned model takes part at every budget. Writes results/significance.csv, one row per group of questions, budget
and pair, and results/significance.md, one table per group and budget.
"""

import itertools
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.significance import holm, mcnemar
from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import predictions
from experiments.recorded.by_type import ALL, SEVERAL_LOOKS, groups
from experiments.recorded.cells import write_text

RESULT = Path("results/significance.csv")
TABLE = Path("results/significance.md")
BETTER, WORSE = "+", "−"


def table(parameters: Parameters) -> pd.DataFrame:
    """significance.csv: every pair of methods once at each budget that both reach, in the order of params.yaml.

    `difference` is the accuracy of `first` less that of `second`; `only_first` and `only_second` count the questions
    that only one of them answers. `significant` says whether `p_holm` is at most alpha.
    """
    types, answers = answers_by_budget(parameters)
    full = answers.pop(1.0, pd.DataFrame())
    benchmark = parameters.evaluate.benchmark
    rows = [
        {"type": kind, "budget": budget} | row
        for kind, of_kind in groups(types.rename("type").reset_index(), benchmark)
        if kind in (ALL, SEVERAL_LOOKS)
        for budget, correct in answers.items()
        for row in pairs_of(pd.concat([full, correct], axis=1).loc[of_kind["id"]], parameters.significance.alpha)
    ]
    if not rows:
        raise ValueError("significance needs at least two methods in params.yaml's evaluate.methods")
    head = {"model": parameters.model, "benchmark": benchmark}
    return pd.DataFrame([head | row for row in rows])


def pairs_of(correct: pd.DataFrame, alpha: float) -> list[dict[str, Any]]:
    """Every pair of columns of 0/1 answers, tested, and corrected for all of them."""
    rows = []
    for first, second in itertools.combinations(correct.columns, 2):
        ours, theirs = correct[first].to_numpy(), correct[second].to_numpy()
        only_first, only_second, p = mcnemar(ours, theirs)
        row = {"first": first, "second": second, "n": len(correct)}
        row |= {"accuracy_first": round(ours.mean(), 6), "accuracy_second": round(theirs.mean(), 6)}
        row |= {"difference": round((only_first - only_second) / len(correct), 6)}
        rows.append(row | {"only_first": only_first, "only_second": only_second, "p": p})
    corrected = holm([row["p"] for row in rows])
    return [row | {"p_holm": p, "significant": bool(p <= alpha)} for row, p in zip(rows, corrected, strict=True)]


def answers_by_budget(parameters: Parameters) -> tuple["pd.Series[str]", dict[float, pd.DataFrame]]:
    """The type of each question by its id; and for each budget, largest first, the 0/1 answers of the methods that
    reach it: a column each, rows by question.

    Raises:
        ValueError: methods answered different questions.
    """
    types: pd.Series[str] = pd.Series(dtype=str)
    answers: dict[float, dict[str, pd.Series]] = {}
    for cell in predictions.read(parameters.evaluate, ["id", "type", "correct"]):
        if cell.feasible:
            by_id = cell.answers.set_index("id")
            types = by_id["type"]
            answers.setdefault(cell.budget, {})[cell.method] = by_id["correct"].astype(float)
    asked = {frozenset(correct.index) for by_method in answers.values() for correct in by_method.values()}
    if len(asked) > 1:
        raise ValueError("the methods answered different questions: run `dvc repro evaluate`")
    return types, {budget: pd.DataFrame(answers[budget]) for budget in sorted(answers, reverse=True)}


def markdown(pairs: pd.DataFrame, alpha: float) -> str:
    """One table per group and budget: methods by accuracy, and of each which others it is better or worse than."""
    parts = []
    for (kind, budget), rows in pairs.groupby(["type", "budget"], sort=False):
        accuracy = pd.concat([rows.set_index(side)[f"accuracy_{side}"] for side in ("first", "second")])
        accuracy = accuracy.groupby(level=0, sort=False).first().sort_values(ascending=False, kind="stable")
        sign = pd.DataFrame("", index=accuracy.index, columns=accuracy.index)
        for row in rows[rows["significant"]].itertuples():
            better, worse = (row.first, row.second) if row.difference > 0 else (row.second, row.first)
            sign.loc[better, worse], sign.loc[worse, better] = BETTER, WORSE
        for name in accuracy.index:
            sign.loc[name, name] = "·"
        numbers = range(1, len(accuracy) + 1)
        parts += [
            f"{kind.replace('_', ' ').capitalize()}, budget {budget:.1%}, "
            f"n = {rows['n'].iloc[0]} questions, {len(rows)} pairs",
            "",
            "| | method | accuracy | " + " | ".join(map(str, numbers)) + " |",
            "|---" * (len(accuracy) + 3) + "|",
            *(
                f"| {number} | {name} | {100 * accuracy[name]:.1f} | " + " | ".join(sign.loc[name]) + " |"
                for number, name in zip(numbers, accuracy.index, strict=True)
            ),
            "",
        ]
    caption = (
        f"{BETTER}: the row's method answers significantly more questions than the column's, {WORSE}: fewer; "
        "empty: not told apart. Exact McNemar tests on the same questions, Holm-corrected over all pairs of a budget, "
        f"{alpha:.0%} level. Accuracy in percent."
    )
    return "\n".join([*parts, caption, ""])


def write(parameters: Parameters) -> None:
    """Both tables."""
    pairs = table(parameters)
    write_text(RESULT, pairs.to_csv(index=False, float_format="%.6g"))
    write_text(TABLE, markdown(pairs, parameters.significance.alpha))


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
