"""params.yaml, checked: one section for each stage, the names and ranges that the stages rely on.

A misspelt key or a value out of range is one clear error before anything runs, not a default that is silently used.
"""

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from experiments import benchmarks, figures, presets

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


# How pydantic is told that the methods are not to be tried out.
NAMES_ONLY = "names only"


class ParametersError(ValueError):
    """params.yaml cannot be used; the message names every stage and key to change."""


class Section(BaseModel):
    """The parameters of one stage; unknown keys and values of another type ("64" for 64) are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Scenes(Section):
    """experiments/scenes.py"""

    seed: Seed


class Train(Section):
    """experiments/train.py; steps are those of each phase of experiments/testbed/phases.py."""

    seed: Seed
    steps: Annotated[dict[Literal["words", "vision", "joint"], Count], Field(min_length=3)]


class TrainQwen(Section):
    """experiments/train_qwen.py; steps are those of each phase of experiments/testbed/phases_qwen.py."""

    seed: Seed
    steps: Annotated[dict[Literal["vision", "joint"], Count], Field(min_length=2)]


class CaptureAttention(Section):
    """experiments/capture_attention.py"""

    questions: Count
    batch_size: Count
    seed: Seed


class Evaluate(Section):
    """experiments/evaluate.py

    Attributes:
        benchmark: a key of experiments.benchmarks.BENCHMARKS.
        questions: size of a subset balanced over the question types; 0 takes every question.
        budgets: fractions of the visual tokens, as the mean over the decoder layers; 1.0 is the unpruned model.
        methods: name -> its own parameters, without the one that the budget decides.
    """

    benchmark: str
    questions: Annotated[int, Field(ge=0)]
    seed: Seed
    batch_size: Count
    max_new_tokens: Count
    budgets: Annotated[list[Fraction], Field(min_length=1)]
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    @field_validator("benchmark")
    @classmethod
    def _benchmark_exists(cls, benchmark: str) -> str:
        return _one_of("benchmark", benchmark, benchmarks.BENCHMARKS)

    @field_validator("budgets")
    @classmethod
    def _budgets_differ(cls, budgets: list[float]) -> list[float]:
        return _no_repeats(budgets)

    @field_validator("methods")
    @classmethod
    def _methods_exist(cls, methods: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        if info.context == NAMES_ONLY:
            return methods
        import pruning

        for name, parameters in methods.items():
            _one_of("method", name, pruning.names())
            try:
                method = pruning.make(name, **parameters)
            except ValueError as error:
                raise ValueError(f"{name}: {str(error).removeprefix(f'{name} ')}") from error
            if method.budget_parameter in parameters:
                raise ValueError(f"{name}: `{method.budget_parameter}` follows from the budget; leave it out here")
        return methods


class Intervals(Section):
    """Bootstrap intervals."""

    confidence: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    resamples: Count
    seed: Seed


class Accuracy(Intervals):
    """experiments/accuracy.py"""


class EvidenceRecall(Intervals):
    """experiments/evidence_recall.py"""


class Significance(Section):
    """experiments/significance.py: the level at which a corrected difference counts."""

    alpha: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class FreeForm(Section):
    """experiments/free_form.py

    Attributes:
        questions: size of the subset; 0 takes every free-form question.
        budgets: as in `evaluate`.
        methods: keys of evaluate.methods, which has their parameters.
    """

    questions: Annotated[int, Field(ge=0)]
    seed: Seed
    batch_size: Count
    max_new_tokens: Count
    budgets: Annotated[list[Fraction], Field(min_length=1)]
    methods: Annotated[list[str], Field(min_length=1)]


class Judge(Section):
    """experiments/judge.py: a language model behind an OpenAI-compatible endpoint.

    Attributes:
        url: of the endpoint, such as http://localhost:8000/v1.
        model: its name there.
        key_file: a file that holds the key and nothing else; null where the server wants none.
        retries: further tries after a refused or lost request, with growing waits.
        timeout: seconds for one reply.
        workers: requests under way at a time.
    """

    url: str
    model: str
    key_file: str | None = None
    retries: Annotated[int, Field(ge=0)] = 5
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    workers: Count = 8


class ScoreCorrelation(Section):
    """experiments/score_correlation.py

    Attributes:
        questions: those whose scores are compared; 0 takes every question.
        budget: one of evaluate's, where the kept tokens are compared.
    """

    questions: Annotated[int, Field(ge=0)]
    batch_size: Count
    seed: Seed
    budget: Fraction


class Latency(Section):
    """experiments/latency.py

    Attributes:
        batch_size: questions that are prefilled together.
        repeats, warm_ups: prefills of every method that count, and those before them that do not.
    """

    batch_size: Count
    repeats: Count
    warm_ups: Annotated[int, Field(ge=0)]
    seed: Seed
    budgets: Annotated[list[Fraction], Field(min_length=1)]


class Subset(Section):
    """Questions on which many settings are compared, balanced over the types; see experiments/settings.py."""

    questions: Count
    seed: Seed


class QuartileKept(Subset):
    """experiments/quartile_kept.py: the decoder layers (0-based) from which on a quartile is all there is."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @field_validator("layers")
    @classmethod
    def _layers_differ(cls, layers: list[int]) -> list[int]:
        return _no_repeats(layers)


class ScoreKept(Subset):
    """experiments/score_kept.py: visual tokens kept of every image."""

    keep: Count


class Ablation(Subset):
    """experiments/ablation.py: for each method the values of its parameters, of which every combination is run."""

    grids: Annotated[dict[str, dict[str, Annotated[list[Any], Field(min_length=1)]]], Field(min_length=1)]

    @field_validator("grids")
    @classmethod
    def _grids_fit(
        cls, grids: dict[str, dict[str, list[Any]]], info: ValidationInfo
    ) -> dict[str, dict[str, list[Any]]]:
        if info.context == NAMES_ONLY:
            return grids
        import pruning

        for name, grid in grids.items():
            _one_of("method", name, pruning.names())
            valid = [field.name for field in dataclasses.fields(pruning.registry.get(name))]
            for parameter, values in grid.items():
                _one_of(f"parameter of {name}", parameter, valid)
                _no_repeats(values)
        return grids


class Parameters(Section):
    """All of params.yaml."""

    model: str
    scenes: Scenes
    train: Train
    train_qwen: TrainQwen
    capture_attention: CaptureAttention
    evaluate: Evaluate
    accuracy: Accuracy
    significance: Significance
    free_form: FreeForm
    judge: dict[str, Judge]
    evidence_recall: EvidenceRecall
    score_correlation: ScoreCorrelation
    latency: Latency
    quartile_kept: QuartileKept
    score_kept: ScoreKept
    ablation: Ablation
    figures: list[str]

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        presets.find(model)
        return model

    @field_validator("figures")
    @classmethod
    def _figures_exist(cls, names: list[str]) -> list[str]:
        return _no_repeats([_one_of("figure", name, figures.names()) for name in names])


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
            yield f"  {where}: unknown key.{_suggestion(str(key), known)} {listing}: {', '.join(known)}."
        elif problem["type"] == "missing":
            yield f"  {where}: missing; add it."
        elif problem["type"] == "value_error":
            yield f"  {where}: {problem['ctx']['error']}"
        else:
            yield f"  {where}: got {problem['input']!r}. {problem['msg']}."


def _fields(stage: Any) -> list[str]:
    section = Parameters.model_fields[stage].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else []


def _one_of(kind: str, name: str, known: Any) -> str:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}.{_suggestion(name, known)} Known: {', '.join(known)}.")
    return name


def _no_repeats(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError(f"{values} lists a value twice")
    return values


def _suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
