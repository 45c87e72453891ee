"""params.yaml, checked: one section for each stage (experiments/parameters/sections.py, parameter_training.py).

A misspelt key or a value out of range is one clear error before anything runs, not a default that is silently used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, field_validator

from experiments.named import presets
from experiments.parameters.checks import NAMES_ONLY, Section, suggestion
from experiments.parameters.sections import (
    Ablation,
    Accuracy,
    CaptureAttention,
    Efficiency,
    Evaluate,
    EvidenceRecall,
    FreeForm,
    GlimpseDepth,
    GlimpseMasks,
    Judge,
    Latency,
    QuartileKept,
    Scenes,
    ScoreCorrelation,
    ScoreKept,
    SecondModel,
    Significance,
    Subset,
)
from experiments.parameters.training import Train, TrainGlimpse, TrainQwen


class ParametersError(ValueError):
    """params.yaml cannot be used; the message names every stage and key to change."""


class Parameters(Section):
    """All of params.yaml.

    Attributes:
        model: a preset of experiments/named/presets.py, or a folder.
        weights: what DVC watches for changes of the model: its folder, or for a model of the hub any file of this
            repository that stays, such as experiments/named/presets.py.
        modules: the same for the modules of `evaluate.methods.glimpse`.
    """

    model: str
    weights: str
    modules: str
    scenes: Scenes
    train: Train
    train_qwen: TrainQwen
    train_glimpse: dict[str, TrainGlimpse]
    capture_attention: CaptureAttention
    evaluate: Evaluate
    accuracy: Accuracy
    significance: Significance
    free_form: FreeForm
    judge: dict[str, Judge]
    evidence_recall: EvidenceRecall
    score_correlation: ScoreCorrelation
    latency: Latency
    efficiency: Efficiency
    quartile_kept: QuartileKept
    reading_depth: Subset
    score_kept: ScoreKept
    ablation: Ablation
    glimpse_masks: GlimpseMasks
    glimpse_depth: GlimpseDepth
    second_model: SecondModel

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        presets.find(model)
        return model


def load_parameters(path: str | Path = "params.yaml", *, try_methods: bool = True) -> Parameters:
    """Read and check params.yaml.

    Args:
        path: the file.
        try_methods: make every method of `evaluate` with its own parameters, which imports torch and transformers. Only
            stages that read what `evaluate` has written, and so what it has checked, do without.

    Raises:
        ParametersError: no such file, not YAML, or parameters that the stages cannot use; the message has one line for
            each, with the stage, the key, what was given and what is allowed.
    """
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParametersError(f"{path}: there is no such file; run the stages in the repository's folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParametersError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(given, dict):
        raise ParametersError(f"{path}: holds no sections; expected {', '.join(Parameters.model_fields)}.")
    try:
        return Parameters.model_validate(given, context=None if try_methods else NAMES_ONLY)
    except ValidationError as error:
        raise ParametersError("\n".join([f"{path} cannot be used:", *_explain(error)])) from None


def _explain(error: ValidationError) -> Iterator[str]:
    """One line for each problem that pydantic found."""
    for problem in error.errors():
        *parents, key = problem["loc"]
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            stage, known = (parents[0], _fields(parents[0])) if parents else ("", list(Parameters.model_fields))
            listing = f"The keys of `{stage}` are" if parents else "The stages and keys at the top are"
            yield f"  {where}: unknown key.{suggestion(str(key), known)} {listing}: {', '.join(known)}."
        elif problem["type"] == "missing":
            yield f"  {where}: missing; add it."
        elif problem["type"] == "value_error":
            yield f"  {where}: {problem['ctx']['error']}"
        else:
            yield f"  {where}: got {problem['input']!r}. {problem['msg']}."


def _fields(stage: Any) -> list[str]:
    section = Parameters.model_fields[stage].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else []
