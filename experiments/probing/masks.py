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


class MaskRule(NamedTuple):
    """The modules in a folder, a cap on the kept share (1 is none) and the threshold of what is kept."""

    path: str
    cap: float
    threshold: float = PAPER_THRESHOLD


def run(model_name: str, rules: list[MaskRule], benchmark: Dataset, asked: Evaluate) -> pd.DataFrame:
    """One row for each rule and question: its answer, kept tokens after layer K and how these match the evidence."""
    model, processor = models.load(model_name)
    batches = list(answers.make_batches(processor, model.config, benchmark, asked.batch_size))
    counts = {batch.visual_tokens for batch in batches}
    methods = {rule: dict.fromkeys(counts, method_of(rule)) for rule in rules}
    by_lot = [rule for rule in rules if rule.cap == 1 and rule.threshold == PAPER_THRESHOLD]
    total = (len(methods) + len(by_lot)) * len(benchmark)
    rows: list[dict[str, Any]] = []
    with answers.side_by_side(model) as copies, tqdm(total=total, unit="question") as progress:
        for answered in answers.answer_all(copies, processor, methods, batches, asked.max_new_tokens):
            for rule, by_row in answered.items():
                labels = {"rule": rules.index(rule), **rule._asdict()}
                rows += [{**labels, "row": row, **measure(found, rule.cap)} for row, found in by_row.items()]
                progress.update(len(by_row))
        table = pd.DataFrame(rows).sort_values(["rule", "row"]).assign(random_correct=np.nan)
        for rule in by_lot:
            own = table["rule"] == rules.index(rule)
            kept = table[own].set_index("row")["kept"].map(len)
            lots = dict.fromkeys(counts, RandomMasks(k=checkpoint.read_config(rule.path).reduce_layer + 1))
            told = [with_counts(batch, kept) for batch in batches]
            right: dict[int, float] = {}
            for answered in answers.answer_all(copies, processor, {rule: lots}, told, asked.max_new_tokens):
                right |= {row: float(found["correct"]) for row, found in answered[rule].items()}
                progress.update(len(answered[rule]))
            table.loc[own, "random_correct"] = table.loc[own, "row"].map(right)
    return table


def with_counts(batch: answers.Batch, kept: "pd.Series[int]") -> answers.Batch:
    """The batch with how many visual tokens each of its questions is to keep, by row of the benchmark."""
    questions = [
        question | {"counts": int(kept[row])} for row, question in zip(batch.rows, batch.questions, strict=True)
    ]
    return replace(batch, questions=questions)


def rules_of(path: str, asked: GlimpseMasks) -> list[MaskRule]:
    """Every cap, then every threshold without a cap."""
    capped = [MaskRule(path, cap) for cap in asked.caps]
    return capped + [MaskRule(path, 1.0, threshold) for threshold in asked.thresholds]


def method_of(rule: MaskRule) -> pruning.Method:
    """GlimpsePrune as a rule has it."""
    capped = {} if rule.cap == 1 else {"max_remain_ratio": rule.cap}
    return pruning.make(METHOD, path=rule.path, threshold=rule.threshold, **capped)


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
