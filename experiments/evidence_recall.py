"""How much of the evidence each method keeps, beside its accuracy: `python -m experiments.evidence_recall`.

Evidence are the visual tokens that a question's ground-truth boxes touch. Writes results/evidence_recall.csv, one row
per group of questions (experiments/recorded/by_type.py), method and feasible budget, over those with boxes:

- `recall`: the share of the evidence tokens that enter a decoder layer, mean over the layers as in the budget;
- `recall_last_layer`: the share that enters the last layer;
- `accuracy` on the same questions. All with bootstrap intervals (`_low`, `_high`) over the questions.

A token made of several by merging counts for no cell, unless the method takes it for one of them (PruMerge's kept
tokens, which take others in, count for their own cell): what the other cells gave to it is not seen here. `merged` is
the share of such tokens without a cell among the visual tokens that are left in the end.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoConfig

from analysis.evidence import evidence_tokens, recall
from analysis.significance import mean_intervals
from experiments import stage
from experiments.asking import benchmarks
from experiments.asking.boxes import seen_boxes
from experiments.asking.handling import handled
from experiments.asking.processors import load_processor
from experiments.named import presets
from experiments.parameters.load import Parameters
from experiments.recorded import predictions
from experiments.recorded.by_type import groups
from experiments.recorded.cells import write_text
from experiments.recorded.kept import layers_per_token, left, raster

RESULT = Path("results/evidence_recall.csv")
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
    of_groups = [
        means(chosen, parameters).assign(type=kind) for kind, chosen in groups(questions, parameters.evaluate.benchmark)
    ]
    joined = pd.concat(of_groups, ignore_index=True)
    joined = joined.assign(model=parameters.model, benchmark=parameters.evaluate.benchmark)
    ends = [name for measure in MEASURES for name in (measure, f"{measure}_low", f"{measure}_high")]
    return joined[["model", "benchmark", "type", "method", "budget", "n", "merged", *ends]]


def evidence_boxes(parameters: Parameters) -> dict[str, list[list[float]]]:
    """The boxes of each question that has any, by its id, in the frame that the vision tower sees."""
    settings, preset = parameters.evaluate, presets.find(parameters.model)
    config = AutoConfig.from_pretrained(preset.source)
    processor = handled(load_processor(preset.source, config), config, preset.image, preset.system)
    asked = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    sizes = [image.size for image in asked["image"]]
    found = {
        name: seen_boxes(boxes, size, processor.image_processor)
        for name, boxes, size in zip(asked["id"], asked["boxes"], sizes, strict=True)
    }
    return {name: boxes for name, boxes in found.items() if boxes}


def measure(row: dict[str, Any], evidence_N: np.ndarray) -> dict[str, Any]:
    """One question's recall under one method and budget."""
    layers = len(row["visual_tokens_per_layer"])
    entered = layers_per_token(row["kept"], row["visual_tokens"], layers)
    over_layers, at_last = recall(entered, evidence_N, layers)
    numbers = left(row["kept"], row["visual_tokens"])
    merged = float(np.mean(numbers >= row["visual_tokens"])) if len(numbers) else 0.0
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


def write(parameters: Parameters) -> None:
    """The table."""
    write_text(RESULT, table(parameters).to_csv(index=False))


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
