"""The table of a recipe: methods x benchmarks, the mean in percent of the unpruned model, and what papers print beside.

Writes into OUT/tables/RECIPE: metrics.csv (every metric of every cell, with its interval, tokens and FLOPs), tests.csv
(paired tests of methods at the same setting and against the unpruned model), table.csv, table.md, table.tex.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoConfig

from analysis.aggregates import paired_permutation
from analysis.significance import holm, mcnemar
from experiments.benchmarking import metrics, scored, stored
from experiments.benchmarking.beside import published_average, published_cell
from experiments.benchmarking.costs import SHAPE, costs
from experiments.benchmarking.named import BENCHMARKS
from experiments.benchmarking.recipe import Recipe
from experiments.benchmarking.stored import Run
from experiments.recorded.cells import write_text
from experiments.reports import formats
from experiments.reports.formats import Measured

FULL = "full"


class TableError(ValueError):
    """There is nothing to make a table of; the message says what to run."""


def write(recipe: Recipe, name: str, out: Path) -> list[str]:
    """All files of a recipe's table; returns notes for the reader, on what is missing or not shown.

    Args:
        recipe: which cells.
        name: of the recipe, and of the folder.
        out: of all results.

    Raises:
        TableError: nothing of the recipe has been scored.
    """
    chosen, notes = stored.newest(out)
    runs, scores = wanted(recipe, chosen, out, notes)
    numbers = cells(recipe, runs, scores, out)
    folder = out / "tables" / name
    write_text(folder / "metrics.csv", numbers.to_csv(index=False))
    write_text(folder / "tests.csv", tests(runs, scores).to_csv(index=False))
    shown = layout(recipe, numbers)
    formats.write(folder / "table", shown, caption(recipe, numbers))
    return notes


def wanted(
    recipe: Recipe, chosen: Sequence[Run], out: Path, notes: list[str]
) -> tuple[list[Run], dict[Run, pd.DataFrame]]:
    """The recipe's runs that have been scored, in its order, with their scores; the others are noted."""
    model = recipe.asked().model_name
    by_key = {tuple(run.description[key] for key in stored.KEYS): run for run in chosen}
    runs, scores = [], {}
    for benchmark, setting in itertools.product(recipe.benchmarks, recipe.settings):
        run = by_key.get((model, benchmark, setting.method, setting.label))
        if run is None or not scored.path(out, run).exists():
            state = "not scored" if run is not None else "not answered"
            notes.append(f"{model}/{benchmark}/{setting.method}/{setting.label}: {state}")
            continue
        runs.append(run)
        scores[run] = scored.read(out, run)
    if not runs:
        raise TableError(f"nothing of {model} is scored in {out}: answer and score the recipe first")
    return runs, scores


def cells(recipe: Recipe, runs: Sequence[Run], scores: dict[Run, pd.DataFrame], out: Path) -> pd.DataFrame:
    """metrics.csv: one row for each run and metric.

    `n` questions were answered and scored of `questions`; where they are fewer, the setting could not be had on the
    other images (`reason` is one of them), or a judge gave no score.
    """
    config = AutoConfig.from_pretrained(out / "models" / recipe.asked().model_name)
    rows = []
    for run in runs:
        keys = {key: run.description[key] for key in stored.KEYS}
        answers = run.read([*SHAPE, "reason", "seconds"])
        reasons = answers["reason"].dropna()
        cost = costs(config, keys["method"], answers, recipe.flops)
        if recipe.timed:
            cost["seconds"] = answers["seconds"].median()
        head = keys | {"counted": run.description["counted"], "questions": len(answers)}
        tail = cost | {"reason": reasons.iloc[0] if len(reasons) else "", "run": run.folder.name.removeprefix("run=")}
        found = list(metrics.measured(keys["benchmark"], scores[run]))
        for metric, n, value in found:
            ends = {"value": value.value, "ci_low": value.low, "ci_high": value.high}
            rows.append(head | {"metric": metric, "unit": metrics.UNIT.get(metric, "share"), "n": n} | ends | tail)
        if not found:
            rows.append(head | {"metric": shown_metric(recipe, keys["benchmark"]), "n": 0} | tail)
    return pd.DataFrame(rows)


def shown_metric(recipe: Recipe, benchmark: str) -> str:
    """The metric that the table shows."""
    return recipe.benchmarks[benchmark] or BENCHMARKS[benchmark].metric


def tests(runs: Sequence[Run], scores: dict[Run, pd.DataFrame]) -> pd.DataFrame:
    """Every pair of methods at the same setting, and every run against the unpruned model, on what both answered.

    McNemar's exact test where every unit is right or wrong, else a paired permutation test; corrected (Holm) within a
    benchmark and setting.
    """
    rows: list[dict[str, Any]] = []
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.description["benchmark"], run.description["setting"]), []).append(run)
    for (benchmark, setting), same in groups.items():
        full = groups.get((benchmark, FULL), [])
        pairs = list(itertools.combinations(same, 2)) + [(run, full[0]) for run in same if full and setting != FULL]
        found = [_test(benchmark, setting, *(run for run in pair), scores) for pair in pairs]
        tested = [row for row in found if row is not None]
        corrected = holm([row["p"] for row in tested]) if tested else []
        rows += [row | {"p_holm": float(p)} for row, p in zip(tested, corrected, strict=True)]
    columns = ["benchmark", "setting", "first", "second", "metric", "n", "difference", "test", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def _test(
    benchmark: str, setting: str, first: Run, second: Run, scores: dict[Run, pd.DataFrame]
) -> dict[str, Any] | None:
    ours, theirs = scores[first].dropna(subset=["score"]), scores[second].dropna(subset=["score"])
    both = set(ours["id"]) & set(theirs["id"])
    if not both:
        return None
    metric, left = metrics.contributions(benchmark, ours[ours["id"].isin(both)])
    _, right = metrics.contributions(benchmark, theirs[theirs["id"].isin(both)])
    right = right.reindex(left.index)
    names = {"first": first.description["method"], "second": second.description["method"]}
    row = {"benchmark": benchmark, "setting": setting, **names, "metric": metric, "n": len(left)}
    a, b = left.to_numpy(), right.to_numpy()
    values = np.unique(np.concatenate([a, b]))
    if len(values) <= 2 and 0 in values:
        test, p = "McNemar", mcnemar(a > 0, b > 0)[2]
    else:
        test, p = "permutation", paired_permutation(a, b)
    return row | {"difference": float((a - b).sum()), "test": test, "p": p}


def layout(recipe: Recipe, numbers: pd.DataFrame) -> pd.DataFrame:
    """Method x benchmark as text, with the mean in percent of the unpruned model and the published numbers beside."""
    rows = []
    by_cell = {(row["benchmark"], row["method"], row["setting"], row["metric"]): row for _, row in numbers.iterrows()}
    shown = {name: shown_metric(recipe, name) for name in recipe.benchmarks}
    for setting in recipe.settings:
        found = {name: by_cell.get((name, setting.method, setting.label, metric)) for name, metric in shown.items()}
        if not any(row is not None for row in found.values()):
            continue
        counted = f" ({setting.counted})" if setting.counted else ""
        line: dict[str, Any] = {"method": setting.method, "setting": setting.label + counted}
        for name, row in found.items():
            line[_title(name, shown[name])] = _cell(row)
            if recipe.published is not None and name in recipe.published.benchmarks:
                line[f"{name}, published"] = published_cell(recipe.published, setting, name)
        line["mean"] = _mean(found)
        line["mean, % of full"] = _relative(found, by_cell, shown)
        if recipe.published is not None and not recipe.published.benchmarks:
            line[f"published: {recipe.published.metric}"] = published_average(recipe.published, setting)
        line |= _spent([row for row in found.values() if row is not None], recipe)
        rows.append(line)
    return pd.DataFrame(rows).fillna("")


def _title(name: str, metric: str) -> str:
    return name if metric == BENCHMARKS[name].metric else f"{name} ({metric})"


def _cell(row: pd.Series | None) -> Measured | str:
    if row is None:
        return "–"
    if not row["n"]:
        return "out of reach"
    scale = 1 if row["unit"] == "points" else 100
    value = Measured(*(scale * float(row[name]) for name in ("value", "ci_low", "ci_high")))
    return value if row["n"] == row["questions"] else f"{value.plain()}, {row['n']} of {row['questions']}"


def _mean(found: dict[str, Any]) -> str:
    """The mean over all benchmarks in percent; a dash where one lacks, lacks questions, or is in points."""
    rows = list(found.values())
    if any(row is None or row["n"] < row["questions"] or row["unit"] == "points" for row in rows):
        return "–"
    return f"{100 * np.mean([row['value'] for row in rows]):.1f}"


def _relative(found: dict[str, Any], by_cell: dict[tuple[str, ...], pd.Series], shown: dict[str, str]) -> str:
    """The mean over all benchmarks of percent of the unpruned model; a dash where one lacks, or lacks questions."""
    shares = []
    for name, row in found.items():
        full = by_cell.get((name, FULL, FULL, shown[name]))
        if row is None or full is None or row["n"] < row["questions"] or not full["value"]:
            return "–"
        shares.append(100 * row["value"] / full["value"])
    return f"{np.mean(shares):.1f}"


def _spent(rows: list[pd.Series], recipe: Recipe) -> dict[str, str]:
    """Means over the benchmarks of visual tokens, FLOPs and, where they were measured for themselves, seconds."""
    columns = {"mean visual tokens": "mean_visual_tokens", "TFLOPs": "tflops"}
    if recipe.flops is not None:
        columns[f"TFLOPs as {recipe.flops} counts"] = f"tflops_{recipe.flops}"
    if recipe.timed:
        columns["seconds a question"] = "seconds"
    found = {}
    for title, column in columns.items():
        values = [float(row[column]) for row in rows if column in row and pd.notna(row[column])]
        digits = 1 if column == "mean_visual_tokens" else 3
        found[title] = f"{np.mean(values):.{digits}f}" if values else ""
    return found


def caption(recipe: Recipe, numbers: pd.DataFrame) -> str:
    """What the numbers are, and what is not as in the paper."""
    counts = numbers.groupby("benchmark", sort=False)["questions"].first()
    asked = ", ".join(f"{name} {count}" for name, count in counts.items())
    counted = sorted({str(text) for text in numbers["counted"] if text})
    text = (
        f"{recipe.title}. Model {numbers['model'].iloc[0]}; percent with 95% bootstrap intervals, MME in points; "
        f"questions: {asked}. Mean visual tokens: over the decoder layers' inputs. TFLOPs of a whole prefill, exact."
    )
    if counted:
        text += (
            " A setting tokens-N is the published one for N; in brackets what N counts: tokens entering the language "
            "model, the mean over its layers' inputs, the mean after its layers, or those in the last layer."
        )
    if recipe.published is not None:
        text += f" Published numbers are from data/published/{recipe.published.file}.csv, and were not measured here."
    return " ".join([text, *recipe.departures])
