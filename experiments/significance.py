"""Which differences between methods are more than chance, at every budget: `python -m experiments.significance`.

Each pair of methods is tested on the questions that both answered (exact McNemar), and the p-values of a budget are
corrected together (Holm). The unpruned model takes part at every budget. Writes results/significance.csv, one row per
budget and pair, and results/tables/significance.md, one table per budget.
"""

import argparse
import itertools
from pathlib import Path

import pandas as pd

from analysis.significance import holm, mcnemar
from experiments import predictions
from experiments.cells import write_text
from experiments.parameters import Parameters, load_parameters

RESULT = Path("results/significance.csv")
TABLE = Path("results/tables/significance.md")
BETTER, WORSE = "+", "−"


def table(parameters: Parameters) -> pd.DataFrame:
    """significance.csv: every pair of methods once at each budget that both reach, in the order of params.yaml.

    `difference` is the accuracy of `first` less that of `second`; `only_first` and `only_second` count the questions
    that only one of them answers. `significant` says whether `p_holm` is at most alpha.
    """
    answers = answers_by_budget(parameters)
    full = answers.pop(1.0, pd.DataFrame())
    rows = []
    for budget, correct in answers.items():
        at_budget = []
        everyone = pd.concat([full, correct], axis=1)
        for first, second in itertools.combinations(everyone.columns, 2):
            ours, theirs = everyone[first].to_numpy(), everyone[second].to_numpy()
            only_first, only_second, p = mcnemar(ours, theirs)
            row = {"budget": budget, "first": first, "second": second, "n": len(everyone)}
            row |= {"accuracy_first": round(ours.mean(), 6), "accuracy_second": round(theirs.mean(), 6)}
            row |= {"difference": round((only_first - only_second) / len(everyone), 6)}
            at_budget.append(row | {"only_first": only_first, "only_second": only_second, "p": p})
        for row, corrected in zip(at_budget, holm([row["p"] for row in at_budget]), strict=True):
            rows.append(row | {"p_holm": corrected, "significant": bool(corrected <= parameters.significance.alpha)})
    if not rows:
        raise ValueError("significance needs at least two methods in params.yaml's evaluate.methods")
    head = {"model": parameters.model, "benchmark": parameters.evaluate.benchmark}
    return pd.DataFrame([head | row for row in rows])


def answers_by_budget(parameters: Parameters) -> dict[float, pd.DataFrame]:
    """For each budget, largest first, the 0/1 answers of the methods that reach it: a column each, rows by question.

    Raises:
        ValueError: methods answered different questions.
    """
    answers: dict[float, dict[str, pd.Series]] = {}
    for cell in predictions.read(parameters.evaluate, ["id", "correct"]):
        if cell.feasible:
            answers.setdefault(cell.budget, {})[cell.method] = cell.answers.set_index("id")["correct"].astype(float)
    asked = {frozenset(correct.index) for by_method in answers.values() for correct in by_method.values()}
    if len(asked) > 1:
        raise ValueError("the methods answered different questions: run `dvc repro evaluate`")
    return {budget: pd.DataFrame(answers[budget]) for budget in sorted(answers, reverse=True)}


def markdown(pairs: pd.DataFrame, alpha: float) -> str:
    """One table per budget: methods by accuracy, and of each whether it is better or worse than each other one."""
    parts = []
    for budget, rows in pairs.groupby("budget", sort=False):
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
            f"Budget {budget:.1%}, n = {rows['n'].iloc[0]} questions, {len(rows)} pairs",
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


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        parameters = load_parameters(try_methods=False)
        pairs = table(parameters)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    write_text(RESULT, pairs.to_csv(index=False, float_format="%.6g"))
    write_text(TABLE, markdown(pairs, parameters.significance.alpha))


if __name__ == "__main__":
    main()
