"""What GlimpsePrune keeps under caps and thresholds, and how it matches the evidence."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset
from tqdm import tqdm

import pruning
from analysis.masks import MaskQuality, mask_quality
from analysis.significance import accuracy_interval
from experiments.asking import answers, models
from experiments.parameters.sections import Accuracy, Evaluate, GlimpseMasks
from experiments.probing.random_masks import RandomMasks
from experiments.recorded.by_type import groups
from experiments.recorded.kept import evidence, left
from pruning.glimpse import checkpoint
from pruning.glimpse.selection import KeepImportant

METHOD = "glimpse"


MEASURES = ["kept_share", "mean_visual_tokens", "flops", "evidence_share", "recall_bound", *MaskQuality._fields]


PAPER_THRESHOLD = KeepImportant.threshold


class Setting(NamedTuple):
    """The modules in a folder, a cap on the kept share (1 is none) and the threshold of what is kept."""

    path: str
    cap: float
    threshold: float = PAPER_THRESHOLD


def run(model_name: str, settings: list[Setting], benchmark: Dataset, asked: Evaluate) -> pd.DataFrame:
    """One row for each setting and question: its answer, kept tokens after layer K and how these match the evidence."""
    model, processor = models.load(model_name)
    batches = list(answers.make_batches(processor, model.config, benchmark, asked.batch_size))
    counts = {batch.visual_tokens for batch in batches}
    methods = {setting: dict.fromkeys(counts, method_of(setting)) for setting in settings}
    by_lot = [setting for setting in settings if setting.cap == 1 and setting.threshold == PAPER_THRESHOLD]
    total = (len(methods) + len(by_lot)) * len(benchmark)
    rows: list[dict[str, Any]] = []
    with answers.side_by_side(model) as copies, tqdm(total=total, unit="question") as progress:
        for answered in answers.answer_all(copies, processor, methods, batches, asked.max_new_tokens):
            for setting, by_row in answered.items():
                labels = {"setting": settings.index(setting), **setting._asdict()}
                rows += [{**labels, "row": row, **measure(found, setting.cap)} for row, found in by_row.items()]
                progress.update(len(by_row))
        table = pd.DataFrame(rows).sort_values(["setting", "row"]).assign(random_correct=np.nan)
        for setting in by_lot:
            own = table["setting"] == settings.index(setting)
            kept = table[own].set_index("row")["kept"].map(len)
            lots = dict.fromkeys(counts, RandomMasks(k=checkpoint.read_config(setting.path).reduce_layer + 1))
            told = [with_counts(batch, kept) for batch in batches]
            right: dict[int, float] = {}
            for answered in answers.answer_all(copies, processor, {setting: lots}, told, asked.max_new_tokens):
                right |= {row: float(found["correct"]) for row, found in answered[setting].items()}
                progress.update(len(answered[setting]))
            table.loc[own, "random_correct"] = table.loc[own, "row"].map(right)
    return table


def with_counts(batch: answers.Batch, kept: "pd.Series[int]") -> answers.Batch:
    """The batch with how many visual tokens each of its questions is to keep, by row of the benchmark."""
    questions = [
        question | {"counts": int(kept[row])} for row, question in zip(batch.rows, batch.questions, strict=True)
    ]
    return replace(batch, questions=questions)


def settings_of(path: str, asked: GlimpseMasks) -> list[Setting]:
    """Every cap, then every threshold without a cap."""
    capped = [Setting(path, cap) for cap in asked.caps]
    return capped + [Setting(path, 1.0, threshold) for threshold in asked.thresholds]


def method_of(setting: Setting) -> pruning.Method:
    """GlimpsePrune as a setting has it."""
    capped = {} if setting.cap == 1 else {"max_remain_ratio": setting.cap}
    return pruning.make(METHOD, path=setting.path, threshold=setting.threshold, **capped)


def measure(answer: dict[str, Any], cap: float) -> dict[str, Any]:
    """One answer's kept tokens against the evidence of its question."""
    kept_N = np.zeros(answer["visual_tokens"], dtype=bool)
    kept_N[left(answer["kept"], answer["visual_tokens"])] = True
    evidence_N = evidence(answer)
    return {
        **{name: answer[name] for name in ("id", "type", "answer", "prediction", "correct", "visual_tokens")},
        "kept_share": kept_N.mean(),
        "mean_visual_tokens": np.mean(answer["visual_tokens_per_layer"]),
        "flops": answer["flops"]["total"] / answer["flops"]["full"],
        "evidence_share": evidence_N.mean(),
        "recall_bound": min(1.0, int(cap * len(evidence_N)) / max(1, evidence_N.sum())),
        **mask_quality(kept_N, evidence_N)._asdict(),
        "kept": np.flatnonzero(kept_N).tolist(),
    }


def summary(questions: pd.DataFrame, labels: list[str], benchmark: str, settings: Accuracy) -> pd.DataFrame:
    """Means by the columns `labels`, and among each by the benchmark's groups of questions, `all` first."""
    rows = []
    for values, group in questions.groupby(labels, sort=False):
        for kind, chosen in groups(group, benchmark):
            row = dict(zip(labels, values, strict=True)) | {"type": kind, "n": len(chosen)}
            row |= _accuracy(chosen["correct"], "", settings)
            row |= _accuracy(chosen["random_correct"].dropna(), "random_", settings)
            rows.append(row | chosen[MEASURES].mean().to_dict())
    return pd.DataFrame(rows).round(4)


def _accuracy(correct: "pd.Series[float]", prefix: str, settings: Accuracy) -> dict[str, float]:
    """Mean and interval in columns whose names begin with `prefix`; nothing where nothing was asked."""
    if not len(correct):
        return {}
    low, high = accuracy_interval(
        correct.astype(float), confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
    )
    return {f"{prefix}accuracy": correct.astype(float).mean(), f"{prefix}ci_low": low, f"{prefix}ci_high": high}
