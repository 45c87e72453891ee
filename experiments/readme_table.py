"""The tables inside README.md and docs/, from the committed results: `python -m experiments.readme_table`.

Where a page says

    <!-- table: accuracy -->
    <!-- end of table -->

the lines between the two marks are replaced by what results/ holds; all else stays as it is. `--check` changes nothing
and fails where a page is behind the results. Tables that stages write to results/tables/ are included by the docs as
they are and are not made here.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from experiments.recorded.by_type import ALL
from experiments.recorded.cells import write_text

RESULTS = Path("results")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
# The short table: two references and a dozen published methods.
SHOWN = (
    "random",
    "oracle",
    "vispruner",
    "visionzip",
    "fastervlm",
    "divprune",
    "cdpruner",
    "prumerge_plus",
    "tome",
    "fastv",
    "pyramiddrop",
    "sparsevlm",
    "dart",
    "sequential_prune",
)
BUDGETS = 5
BUDGET = 0.111  # of the testbed's table by question type
VISUAL, KEEP = 576, 64  # of the table of selection times
MACHINE = ["device", "dtype", "threads", "torch", "transformers"]
PUBLISHED_THRESHOLD = 0.5  # of GlimpsePrune


def accuracy(results: Path) -> str:
    """Accuracy of the methods in `SHOWN` at the lowest budgets, plain numbers."""
    table = _over_all_types(results / "accuracy.csv")
    budgets = sorted(set(table.loc[table["budget"] < 1, "budget"]), reverse=True)[-BUDGETS:]
    shown = table[table["method"].isin(SHOWN) & table["budget"].isin(budgets)]
    reached = shown[shown["feasible"]]
    cells = {(row["method"], row["budget"]): row["accuracy"] for _, row in reached.iterrows()}
    methods = [name for name in SHOWN if name in set(shown["method"])]
    rows = [[f"`{name}`", *(_percent(cells.get((name, budget))) for budget in budgets)] for name in methods]
    half = max((reached["ci_high"] - reached["accuracy"]).max(), (reached["accuracy"] - reached["ci_low"]).max())
    unpruned = table.loc[table["method"] == "full", "accuracy"].iloc[0]
    first = table.iloc[0]
    caption = (
        f"Accuracy in percent of {first['model']} on {first['benchmark']}, n = {first['n']} questions; unpruned "
        f"{_percent(unpruned)}. 95 % intervals reach at most {100 * half:.1f} points to either side. A dash: no "
        "setting of the method comes near the budget."
    )
    return f"{_markdown(['method', *map(_share, budgets)], rows)}\n\n{caption}\n"


def question_types(results: Path) -> str:
    """Accuracy by question type: unpruned, with and without luck at one budget, and without the image."""
    table, blind = pd.read_csv(results / "accuracy.csv"), pd.read_csv(results / "blind.csv")
    cells = table.set_index(["method", "budget", "type"])
    asked = (("full", 1.0), ("oracle", BUDGET), ("random", BUDGET))
    rows = [
        [row["type"], *(f"{cells.loc[(*cell, row['type']), 'accuracy']:.2f}" for cell in asked)]
        + [f"{row[column]:.2f}" for column in ("constant", "wording", "withheld")]
        for _, row in blind.iterrows()
    ]
    at = _share(BUDGET)
    head = ["type", "full model", f"oracle, {at}", f"random, {at}", "constant answer", "by wording"]
    counts = [_range(source.loc[source["type"].isin(blind["type"]), "n"]) for source in (table[table["n"] > 0], blind)]
    caption = (
        f"Accuracy on {counts[0]} questions of each type; the three columns on the right never see the picture "
        f"(`results/blind.csv`, {counts[1]} questions of each type): the most frequent answer, the most frequent "
        "answer to the same wording, and the model asked without its image."
    )
    return f"{_markdown([*head, 'model without image'], rows)}\n\n{caption}\n"


def glimpse(results: Path) -> str:
    """What GlimpsePrune keeps and answers, by model and cap."""
    table = _over_all_types(results / "glimpse_masks.csv")
    rows = [
        [
            row["model"],
            ("none" if row["cap"] == 1 else _share(row["cap"]))
            + ("" if row["threshold"] == PUBLISHED_THRESHOLD else f", threshold {row['threshold']:g}"),
            f"{_percent(row['accuracy'])} ({_percent(row['ci_low'])} to {_percent(row['ci_high'])})",
            _share(row["kept_share"]),
            f"{row['mean_visual_tokens']:.1f}",
            f"{row['recall']:.2f} of {row['recall_bound']:.2f}",
            *(f"{row[name]:.2f}" for name in ("precision", "iou", "f1")),
            _share(row["flops"]),
        ]
        for _, row in table.iterrows()
    ]
    head = ["model", "cap on the kept share", "accuracy", "kept behind K", "mean visual tokens"]
    head += ["evidence recall, of the most the cap allows", "precision", "mask IoU", "F1", "FLOPs, of the full model's"]
    caption = (
        f"n = {_range(table['n'])} questions (`results/glimpse_masks.csv`); accuracy in percent with its 95 % interval."
    )
    return f"{_markdown(head, rows)}\n\n{caption}\n"


def selection(results: Path) -> str:
    """What choosing costs from `VISUAL` to `KEEP` tokens, for one image and for several."""
    table = pd.read_csv(results / "benchmark_selection.csv")
    table = table[(table["visual_tokens"] == VISUAL) & (table["keep"] == KEEP)]
    machine = table[table.groupby(MACHINE, sort=False).ngroup() == 0]  # the first one of the file
    cells, sizes = machine.set_index(["method", "batch"]), sorted(machine["batch"].unique())
    head, rows = ["method"], []
    for size in sizes:
        images = "" if size == 1 else f"{size} images, "
        head += [f"{images}ms", f"{images}% of prefill", f"{images}times faster than step by step"]
    for name in dict.fromkeys(machine["method"]):
        row = [f"`{name}`"]
        for size in sizes:
            cell = cells.loc[(name, size)]
            faster = "" if pd.isna(cell["times_faster"]) else f"{cell['times_faster']:.2f}"
            row += [_three_digits(cell["choosing_ms"]), _small_percent(cell["share_of_prefill"]), faster]
        rows.append(row)
    return f"{_markdown(head, rows)}\n"


TABLES: dict[str, Callable[[Path], str]] = {
    "accuracy": accuracy,
    "question_types": question_types,
    "glimpse": glimpse,
    "selection": selection,
}


def filled(text: str, results: Path = RESULTS) -> str:
    """A page with its tables as the results have them.

    Raises:
        ValueError: a page names a table that is not made here.
        FileNotFoundError: a result is missing.
    """

    def table(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name not in TABLES:
            raise ValueError(f"unknown table {name!r}. Tables: {', '.join(TABLES)}")
        return f"{start}\n{TABLES[name](results)}\n{end}"

    return MARKED.sub(table, text)


def pages() -> list[Path]:
    """What may hold tables: README.md and docs/*.md."""
    return [Path("README.md"), *sorted(Path("docs").glob("*.md"))]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a page is behind the results")
    check = parser.parse_args(arguments).check
    try:
        texts = {page: page.read_text(encoding="utf-8") for page in pages()}
        behind = {page: new for page, old in texts.items() if (new := filled(old)) != old}
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    if check and behind:
        parser.exit(
            1, f"error: run `python -m experiments.readme_table`: {', '.join(map(str, behind))} to be changed\n"
        )
    for page, text in behind.items():
        write_text(page, text)
        print(page)


def _over_all_types(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    return table[table["type"] == ALL]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _small_percent(value: float) -> str:
    return "<0.001" if value < 1e-5 else f"{100 * value:.3f}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """Without the blanks that would align columns: in a page under git a changed number is then one changed line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
