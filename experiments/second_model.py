"""A short grid on a second model, at several image sizes: `python -m experiments.second_model`.

Reads the section `second_model` of params.yaml, and the confidence of `accuracy`. Writes results/second_model.csv: one
row for each image size, method, budget and question type (and one over all), accuracy with its interval, measured
visual tokens, FLOPs of the prefill as a share of the unpruned model's; the floor where a budget is out of reach.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from PIL.Image import Resampling
from tqdm import tqdm

from experiments import answers, benchmarks, models
from experiments.accuracy import ALL, measured
from experiments.cells import write_text
from experiments.flops import flops_of
from experiments.parameters import Parameters, load_parameters
from experiments.predictions import budgets_of

RESULT = Path("results/second_model.csv")


def resized(benchmark: Dataset, side: int) -> Dataset:
    """The benchmark with its images scaled to `side` x `side` pixels; boxes are relative and stay."""
    return benchmark.map(
        lambda row: {"image": row["image"].resize((side, side), Resampling.BICUBIC)}, keep_in_memory=True
    )


def table(parameters: Parameters) -> pd.DataFrame:
    """second_model.csv; see the module's text."""
    settings = parameters.second_model
    model, processor = models.load(settings.model)
    benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    cells = [(name, budget) for name in settings.methods for budget in budgets_of(name, settings.budgets)]
    rows: list[dict[str, Any]] = []
    total = len(cells) * len(benchmark) * len(settings.image_sizes)
    with answers.side_by_side(model) as copies, tqdm(total=total, unit="question") as progress:
        for side in settings.image_sizes:
            asked = resized(benchmark, side)
            batches = list(answers.make_batches(processor, model.config, asked, settings.batch_size))
            plans = {
                (name, budget): answers.plan(name, budget, settings.methods[name], model.config, batches)
                for name, budget in cells
            }
            feasible = {cell: plan.methods for cell, plan in plans.items() if plan.methods is not None}
            found: dict[tuple[str, float], list[dict[str, Any]]] = {cell: [] for cell in plans}
            progress.update(len(asked) * (len(plans) - len(feasible)))
            for answered in answers.answer_all(copies, processor, feasible, batches, settings.max_new_tokens):
                for cell, by_row in answered.items():
                    found[cell] += by_row.values()
                    progress.update(len(by_row))
            for cell, plan in plans.items():
                head = {"model": settings.model, "image_size": side, **plan.cell}
                rows += _rows(head, pd.DataFrame(found[cell]), model.config, parameters)
    return pd.DataFrame(rows)


def _rows(
    head: dict[str, Any], answered: pd.DataFrame, config: Any, parameters: Parameters
) -> Iterator[dict[str, Any]]:
    """One cell's rows: over all types, then of each."""
    if not head["feasible"]:
        yield {**head, "type": ALL, "n": 0}
        return
    ratios = [_flops_ratio(config, head["method"], row) for row in answered.to_dict("records")]
    answered = answered.assign(ratio=ratios)
    for kind in (ALL, *sorted(answered["type"].unique())):
        chosen = answered if kind == ALL else answered[answered["type"] == kind]
        flops = {"flops_to_full": round(chosen["ratio"].mean(), 4)}
        yield {**head, "type": kind, "n": len(chosen), **measured(chosen, parameters), **flops}


def _flops_ratio(config: Any, name: str, row: dict[str, Any]) -> float:
    per_layer = tuple(row["visual_tokens_per_layer"])
    counted = flops_of(
        config, name, row["parameters"], row["text_tokens"], json.loads(row["images"]), row["visual_tokens"], per_layer
    )
    return counted["total"] / counted["full"]


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        result = table(load_parameters())
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    write_text(RESULT, result.to_csv(index=False))


if __name__ == "__main__":
    main()
