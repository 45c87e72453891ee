"""A short grid on a second model, at several image sizes: `python -m experiments.second_model`.

Reads the section `second_model` of params.yaml, and the confidence of `accuracy`. Beside the methods stands, where
`downsample` is true, the unpruned model on images of so few pixels (experiments/asking/downsample.py). Writes

- results/second_model.csv: one row for each image size, method, budget and group of questions, accuracy
  with its interval, measured visual tokens, FLOPs of the prefill as a share of the unpruned model's on the image as it
  was; the floor where a budget is out of reach;
- results/difficult_questions.csv: at the largest size, for each method and budget, the accuracy on the questions that
  downsampling to that budget answers wrong (`difficult`) and on those that it answers right (`easy`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL.Image import Resampling
from tqdm import tqdm

from experiments import stage
from experiments.asking import answers, benchmarks, downsample, models
from experiments.parameters.load import Parameters
from experiments.parameters.sections import SecondModel
from experiments.recorded.by_type import ALL, groups
from experiments.recorded.cells import write_text
from experiments.recorded.measured import measured
from experiments.recorded.predictions import budgets_of
from pruning.methods.full import Full

RESULT = Path("results/second_model.csv")
DIFFICULT = Path("results/difficult_questions.csv")
DIFFICULT_COLUMNS = ["model", "image_size", "method", "budget", "group", "n"]
DIFFICULT_COLUMNS += ["mean_visual_tokens", "accuracy", "ci_low", "ci_high"]

# What one method at one budget is, and its answers with `ratio`, their FLOPs to the unpruned model's.
Cell = tuple[dict[str, Any], pd.DataFrame]


def resized(benchmark: Dataset, side: int) -> Dataset:
    """The benchmark with its images scaled to `side` x `side` pixels; boxes are relative and stay."""
    return benchmark.map(
        lambda row: {"image": row["image"].resize((side, side), Resampling.BICUBIC)}, keep_in_memory=True
    )


def answer_all_sizes(settings: SecondModel) -> dict[int, list[Cell]]:
    """The cells of every image size, by its side in pixels."""
    model, processor = models.load(settings.model)
    if settings.downsample:
        downsample.token_side(processor)  # refuses a model of one image size before anything is answered
    benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    return {side: list(answer_size(model, processor, benchmark, settings, side)) for side in settings.image_sizes}


def answer_size(model: Any, processor: Any, benchmark: Dataset, settings: SecondModel, side: int) -> Iterator[Cell]:
    """The cells of one image size."""
    asked = resized(benchmark, side)
    batches = list(answers.make_batches(processor, model.config, asked, settings.batch_size))
    cells = [(name, budget) for name in settings.methods for budget in budgets_of(name, settings.budgets)]
    plans = {
        (name, budget): answers.plan(name, budget, settings.methods[name], model.config, batches)
        for name, budget in cells
    }
    methods = {cell: plan.methods for cell, plan in plans.items() if plan.methods is not None}
    head = {"model": settings.model, "image_size": side}
    with answers.side_by_side(model) as copies:
        found = collect(copies, processor, methods, batches, settings.max_new_tokens, f"{side} pixels")
        unpruned = {row["id"]: row["flops"]["full"] for row in next(iter(found.values()), [])}
        for cell, plan in plans.items():
            yield head | plan.cell, _with_ratio(found.get(cell, []), unpruned)
        for budget in budgets_of(downsample.NAME, settings.budgets) if settings.downsample else ():
            fewer = downsample.downsampled(asked, budget, processor)
            small = list(answers.make_batches(processor, model.config, fewer, settings.batch_size))
            full = {downsample.NAME: {batch.visual_tokens: Full() for batch in small}}
            rows = collect(copies, processor, full, small, settings.max_new_tokens, f"downsampled to {budget:.3g}")
            table = _with_ratio(rows[downsample.NAME], unpruned)
            share = table["visual_tokens"].mean() / np.mean([batch.visual_tokens for batch in batches])
            cell = {"method": downsample.NAME, "budget": budget, "floor": None}
            reached = bool(abs(share / budget - 1) <= downsample.FARTHEST)
            yield head | cell | {"feasible": reached}, table


def collect(
    copies: list[Any], processor: Any, methods: dict[Any, Any], batches: list[answers.Batch], limit: int, what: str
) -> dict[Any, list[dict[str, Any]]]:
    """The answers of every method to all batches, under a progress bar that says `what`."""
    found: dict[Any, list[dict[str, Any]]] = {cell: [] for cell in methods}
    with tqdm(total=len(methods) * sum(len(batch.rows) for batch in batches), unit="question", desc=what) as progress:
        for answered in answers.answer_all(copies, processor, methods, batches, limit):
            for cell, by_row in answered.items():
                found[cell] += by_row.values()
                progress.update(len(by_row))
    return found


def rows_of(head: dict[str, Any], answered: pd.DataFrame, parameters: Parameters) -> Iterator[dict[str, Any]]:
    """One cell's rows of second_model.csv, one for each group of questions; out of reach: one."""
    if not head["feasible"]:
        yield {**head, "type": ALL, "n": 0}
        return
    for kind, chosen in groups(answered, parameters.second_model.benchmark):
        flops = {"flops_to_full": round(chosen["ratio"].mean(), 4)}
        yield {**head, "type": kind, "n": len(chosen), **measured(chosen, parameters), **flops}


def by_difficulty(cells: list[Cell], parameters: Parameters) -> Iterator[dict[str, Any]]:
    """The rows of difficult_questions.csv, of the cells of one image size."""
    feasible = [(head, answered) for head, answered in cells if head["feasible"]]
    reference = {
        head["budget"]: answered.set_index("id")["correct"]
        for head, answered in feasible
        if head["method"] == downsample.NAME
    }
    for head, answered in feasible:
        if head["method"] == downsample.NAME or head["budget"] not in reference:
            continue
        right = answered["id"].map(reference[head["budget"]]).astype(bool)
        for group, chosen in (("difficult", answered[~right]), ("easy", answered[right])):
            labels = {key: head[key] for key in ("model", "image_size", "method", "budget")}
            yield {**labels, "group": group, "n": len(chosen), **(measured(chosen, parameters) if len(chosen) else {})}


def _with_ratio(rows: list[dict[str, Any]], unpruned: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame([row | {"ratio": row["flops"]["total"] / unpruned[row["id"]]} for row in rows])


def write(parameters: Parameters) -> None:
    """Both tables."""
    by_size = answer_all_sizes(parameters.second_model)
    rows = [row for cells in by_size.values() for cell in cells for row in rows_of(*cell, parameters)]
    difficult = pd.DataFrame(by_difficulty(by_size[max(by_size)], parameters), columns=DIFFICULT_COLUMNS)
    write_text(RESULT, pd.DataFrame(rows).to_csv(index=False))
    write_text(DIFFICULT, difficult.to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
