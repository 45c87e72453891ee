"""What GlimpsePrune keeps and whether it is the evidence: `python -m experiments.glimpse_masks`.

Reads the sections `evaluate` (benchmark, batch size) and `glimpse_masks` (models' modules, caps) of params.yaml. The
kept share is that after layer K, as in the paper; the tokens of the evidence boxes are those of
experiments/evidence_recall.py. Writes, with the cap on the kept share (`cap` 1: none):

- results/glimpse_questions.csv: for every model, cap and question `correct`, `kept_share`, FLOPs as a share of the
  unpruned model's (`flops`), the share of the tokens that are evidence (`evidence_share`), the highest recall of it
  that the cap allows (`recall_bound`), and the mask's quality;
- results/glimpse_masks.csv: their means by model, cap and question type, accuracy with its interval;
- results/glimpse_examples.csv: what the first model keeps for two questions about each of a few images, without a cap.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from tqdm import tqdm

import pruning
from analysis.evidence import evidence_tokens
from analysis.masks import MaskQuality, mask_quality
from analysis.significance import accuracy_interval
from experiments import answers, benchmarks, models
from experiments.cells import write_text
from experiments.evidence_recall import ALL, raster
from experiments.flops import flops_of
from experiments.parameter_sections import Accuracy, Evaluate
from experiments.parameters import load_parameters

QUESTIONS = Path("results/glimpse_questions.csv")
RESULT = Path("results/glimpse_masks.csv")
EXAMPLES = Path("results/glimpse_examples.csv")
METHOD = "glimpse"
EXAMPLE_TYPES = ("attribute", "reading")
MEASURES = ["kept_share", "mean_visual_tokens", "flops", "evidence_share", "recall_bound", *MaskQuality._fields]
# Which modules, at which cap.
Setting = tuple[str, float]


def run(model_name: str, settings: list[Setting], benchmark: Dataset, asked: Evaluate) -> pd.DataFrame:
    """One row for each setting and question: its answer, kept tokens after layer K and how these match the evidence."""
    model, processor = models.load(model_name)
    batches = list(answers.make_batches(processor, model.config, benchmark, asked.batch_size))
    counts = {batch.visual_tokens for batch in batches}
    methods = {setting: dict.fromkeys(counts, method_of(*setting)) for setting in settings}
    boxes = {question["id"]: question["boxes"] for batch in batches for question in batch.questions}
    rows: list[dict[str, Any]] = []
    with answers.side_by_side(model) as copies, tqdm(total=len(methods) * len(benchmark), unit="question") as progress:
        for answered in answers.answer_all(copies, processor, methods, batches, asked.max_new_tokens):
            for setting, by_row in answered.items():
                labels = {"setting": settings.index(setting), "path": setting[0], "cap": setting[1]}
                rows += [
                    {**labels, "row": row, **measure(model.config, found, boxes, setting[1])}
                    for row, found in by_row.items()
                ]
                progress.update(len(by_row))
    return pd.DataFrame(rows).sort_values(["setting", "row"])


def method_of(path: str, cap: float) -> pruning.Method:
    """The modules in a folder, with a cap on the kept share; 1 is none."""
    return pruning.make(METHOD, path=path, **({} if cap == 1 else {"max_remain_ratio": cap}))


def measure(config: Any, answer: dict[str, Any], boxes: dict[str, list[list[float]]], cap: float) -> dict[str, Any]:
    """One answer's kept tokens against the evidence of its question."""
    kept_N = np.zeros(answer["visual_tokens"], dtype=bool)
    kept_N[answer["kept"][-1]["indices"] if answer["kept"] else slice(None)] = True
    evidence_N = evidence_tokens(boxes[answer["id"]], *raster(answer["visual_tokens"]))
    per_layer = answer["visual_tokens_per_layer"]
    shape = (answer["text_tokens"], json.loads(answer["images"]), answer["visual_tokens"], tuple(per_layer))
    counted = flops_of(config, METHOD, answer["parameters"], *shape)
    return {
        **{name: answer[name] for name in ("id", "type", "answer", "prediction", "correct", "visual_tokens")},
        "kept_share": kept_N.mean(),
        "mean_visual_tokens": np.mean(per_layer),
        "flops": counted["total"] / counted["full"],
        "evidence_share": evidence_N.mean(),
        "recall_bound": min(1.0, int(cap * len(evidence_N)) / max(1, evidence_N.sum())),
        **mask_quality(kept_N, evidence_N)._asdict(),
        "kept": np.flatnonzero(kept_N).tolist(),
    }


def summary(questions: pd.DataFrame, labels: list[str], settings: Accuracy) -> pd.DataFrame:
    """Means by the columns `labels`, and among each by type, `all` first."""
    rows = []
    for values, group in questions.groupby(labels, sort=False):
        for kind in (ALL, *sorted(group["type"].unique())):
            chosen = group if kind == ALL else group[group["type"] == kind]
            low, high = accuracy_interval(
                chosen["correct"].astype(float),
                confidence=settings.confidence,
                resamples=settings.resamples,
                seed=settings.seed,
            )
            row = dict(zip(labels, values, strict=True))
            row |= {"type": kind, "n": len(chosen), "accuracy": chosen["correct"].mean()}
            rows.append(row | {"ci_low": low, "ci_high": high} | chosen[MEASURES].mean().to_dict())
    return pd.DataFrame(rows).round(4)


def examples(questions: pd.DataFrame, images: int) -> pd.DataFrame:
    """Questions of EXAMPLE_TYPES about the first images that have all of them; kept tokens as a JSON list."""
    uncapped = questions[questions["cap"] == questions["cap"].max()]
    uncapped = uncapped.assign(image=uncapped["id"].str.rsplit("-", n=1).str[0])
    shown = uncapped[uncapped["type"].isin(EXAMPLE_TYPES)]
    complete = shown.groupby("image", sort=True)["type"].nunique() == len(EXAMPLE_TYPES)
    shown = shown[shown["image"].isin(complete.index[complete][:images])].sort_values(["image", "type"])
    columns = ["image", "id", "type", "answer", "prediction", "correct", "visual_tokens", "kept_share", "kept"]
    return shown.assign(kept=shown["kept"].map(json.dumps))[columns]


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        parameters = load_parameters()
        settings, asked = parameters.evaluate, parameters.glimpse_masks
        benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
        each = {
            model: run(model, [(path, cap) for cap in asked.caps], benchmark, settings)
            for model, path in asked.modules.items()
        }
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    questions = pd.concat([table.assign(model=model) for model, table in each.items()])
    columns = ["model", "id", "type", "cap", "correct", *MEASURES]
    write_text(QUESTIONS, questions[columns].round(4).to_csv(index=False))
    write_text(RESULT, summary(questions, ["model", "cap"], parameters.accuracy).to_csv(index=False))
    write_text(EXAMPLES, examples(next(iter(each.values())), asked.images).to_csv(index=False))


if __name__ == "__main__":
    main()
