"""How much of the evidence each method keeps, beside its accuracy: `python -m experiments.evidence_recall`.

Evidence are the visual tokens that a question's ground-truth boxes touch. Writes results/evidence_recall.csv, one row
per question type (and one for all), method and feasible budget, over the questions that have boxes:

- `recall`: the share of the evidence tokens that enter a decoder layer, mean over the layers as in the budget;
- `recall_last_layer`: the share that enters the last layer;
- `accuracy` on the same questions. All with bootstrap intervals (`_low`, `_high`) over the questions.

A token made of several by merging counts for no cell, unless the method takes it for one of them (PruMerge's kept
tokens, which take others in, count for their own cell): what the other cells gave to it is not seen here. `merged` is
the share of such tokens without a cell among the visual tokens that are left in the end.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoConfig

from analysis.evidence import evidence_tokens, recall
from analysis.significance import mean_intervals
from experiments import benchmarks, predictions, presets
from experiments.boxes import seen_boxes
from experiments.cells import write_text
from experiments.kept_tokens import layers_per_token
from experiments.parameters import Parameters, load_parameters
from experiments.processors import load_processor

RESULT = Path("results/evidence_recall.csv")
ALL = "all"
MEASURES = ("recall", "recall_last_layer", "accuracy")
COLUMNS = ["id", "type", "correct", "visual_tokens", "visual_tokens_per_layer", "kept"]


def table(parameters: Parameters) -> pd.DataFrame:
    """evidence_recall.csv, in the order of params.yaml; see the module's text.

    Raises:
        ValueError: visual tokens that form no square raster, or no question with evidence boxes.
    """
    boxes = evidence_boxes(parameters)
    evidence: dict[str, np.ndarray] = {}
    measured = []
    for cell in predictions.read(parameters.evaluate, COLUMNS):
        answers = cell.answers[cell.answers["id"].isin(boxes)]
        for row in answers.to_dict("records"):
            if row["id"] not in evidence:
                evidence[row["id"]] = evidence_tokens(boxes[row["id"]], *raster(row["visual_tokens"]))
            measured.append({"method": cell.method, "budget": cell.budget, **measure(row, evidence[row["id"]])})
    if not measured:
        raise ValueError("no question has evidence boxes: evidence recall cannot be measured on this benchmark")
    questions = pd.DataFrame(measured)
    types = [ALL, *sorted(questions["type"].unique())]
    of_types = [
        means(questions if kind == ALL else questions[questions["type"] == kind], parameters).assign(type=kind)
        for kind in types
    ]
    joined = pd.concat(of_types, ignore_index=True)
    joined = joined.assign(model=parameters.model, benchmark=parameters.evaluate.benchmark)
    ends = [name for measure in MEASURES for name in (measure, f"{measure}_low", f"{measure}_high")]
    return joined[["model", "benchmark", "type", "method", "budget", "n", "merged", *ends]]


def evidence_boxes(parameters: Parameters) -> dict[str, list[list[float]]]:
    """The boxes of each question that has any, by its id, in the frame that the vision tower sees."""
    settings, source = parameters.evaluate, presets.find(parameters.model).source
    image_processor = load_processor(source, AutoConfig.from_pretrained(source)).image_processor
    asked = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    sizes = [image.size for image in asked["image"]]
    found = {
        name: seen_boxes(boxes, size, image_processor)
        for name, boxes, size in zip(asked["id"], asked["boxes"], sizes, strict=True)
    }
    return {name: boxes for name, boxes in found.items() if boxes}


def raster(visual_tokens: int) -> tuple[int, int]:
    """Rows and columns of a square raster of so many visual tokens."""
    side = round(visual_tokens**0.5)
    if side**2 != visual_tokens:
        raise ValueError(f"evidence recall needs visual tokens in one square raster; {visual_tokens} are none")
    return side, side


def measure(row: dict[str, Any], evidence_N: np.ndarray) -> dict[str, Any]:
    """One question's recall under one method and budget."""
    layers = len(row["visual_tokens_per_layer"])
    entered = layers_per_token(row["kept"], row["visual_tokens"], layers)
    over_layers, at_last = recall(entered, evidence_N, layers)
    left = row["kept"][-1]["indices"] if len(row["kept"]) else np.arange(row["visual_tokens"])
    merged = float(np.mean(np.asarray(left) >= row["visual_tokens"])) if len(left) else 0.0
    shares = {"recall": over_layers, "recall_last_layer": at_last, "accuracy": float(row["correct"]), "merged": merged}
    return {"id": row["id"], "type": row["type"], **shares}


def means(questions: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Means over the questions, with intervals: a row for each method and budget."""
    settings = parameters.evidence_recall
    wide = questions.pivot(index="id", columns=["method", "budget"], values=list(MEASURES))
    low, high = mean_intervals(wide, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed)
    ends = pd.DataFrame({"": wide.mean().to_numpy(), "_low": low, "_high": high}, index=wide.columns)
    cells = questions.groupby(["method", "budget"], sort=False).agg(n=("id", "size"), merged=("merged", "mean"))
    for name in MEASURES:
        cells = cells.join(ends.loc[name].add_prefix(name))
    return cells.round(6).reset_index()


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        result = table(load_parameters(try_methods=False))
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    write_text(RESULT, result.to_csv(index=False))


if __name__ == "__main__":
    main()
