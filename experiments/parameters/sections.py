"""The sections of params.yaml, one for each stage: the names and ranges that it relies on."""

import dataclasses
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from experiments.named import benchmarks
from experiments.parameters.checks import NAMES_ONLY, Count, Fraction, Section, Seed, no_repeats, one_of


class Scenes(Section):
    """experiments/scenes.py"""

    seed: Seed


class CaptureAttention(Section):
    """experiments/capture_attention.py"""

    questions: Count
    batch_size: Count
    seed: Seed


class Answered(Section):
    """Questions that are answered at several budgets.

    Attributes:
        questions: size of a subset balanced over the question types; 0 takes every question.
        budgets: fractions of the visual tokens, as the mean over the decoder layers; 1.0 is the unpruned model.
    """

    questions: Annotated[int, Field(ge=0)]
    seed: Seed
    batch_size: Count
    max_new_tokens: Count
    budgets: Annotated[list[Fraction], Field(min_length=1)]


class Evaluate(Answered):
    """experiments/evaluate.py

    Attributes:
        benchmark: a key of experiments.named.benchmarks.BENCHMARKS.
        methods: name -> its own parameters, without the one that the budget decides.
    """

    benchmark: str
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    @field_validator("benchmark")
    @classmethod
    def _benchmark_exists(cls, benchmark: str) -> str:
        return one_of("benchmark", benchmark, benchmarks.BENCHMARKS)

    @field_validator("budgets")
    @classmethod
    def _budgets_differ(cls, budgets: list[float]) -> list[float]:
        return no_repeats(budgets)

    @field_validator("methods")
    @classmethod
    def _methods_exist(cls, methods: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        if info.context == NAMES_ONLY:
            return methods
        import pruning

        for name, parameters in methods.items():
            one_of("method", name, pruning.names())
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


class Subset(Section):
    """Questions on which many variants are compared, balanced over the types; see experiments/asking/grid.py."""

    questions: Count
    seed: Seed


class FreeForm(Answered):
    """experiments/free_form.py

    Attributes:
        methods: keys of evaluate.methods, which has their parameters.
    """

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


class Timed(Section):
    """Generations that are timed.

    Attributes:
        batch_size: questions that run together.
        repeats, warm_ups: runs of every method that count, and those before them that do not.
    """

    batch_size: Count
    repeats: Count
    warm_ups: Annotated[int, Field(ge=0)]
    seed: Seed


class Latency(Timed):
    """experiments/latency.py"""

    budgets: Annotated[list[Fraction], Field(min_length=1)]


class Efficiency(Timed):
    """experiments/efficiency.py: its own model, new tokens of every question, and methods with all their parameters.

    Attributes:
        weights: see `Parameters`.
    """

    model: str
    weights: str
    new_tokens: Annotated[int, Field(ge=2)]
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class QuartileKept(Subset):
    """experiments/quartile_kept.py: the decoder layers (0-based) from which on a quartile is all there is."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @field_validator("layers")
    @classmethod
    def _layers_differ(cls, layers: list[int]) -> list[int]:
        return no_repeats(layers)


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
            one_of("method", name, pruning.names())
            valid = [field.name for field in dataclasses.fields(pruning.registry.get(name))]
            for parameter, values in grid.items():
                one_of(f"parameter of {name}", parameter, valid)
                no_repeats(values)
        return grids


class GlimpseMasks(Section):
    """experiments/glimpse_masks.py

    Attributes:
        modules: for each model the folder of its modules, which are trained for one; so the stage has its own models.
        caps: on the share kept behind layer K; 1 is no cap.
        thresholds: others than the paper's, without a cap.
        images: how many are shown with two questions each.
    """

    modules: Annotated[dict[str, str], Field(min_length=1)]
    caps: Annotated[list[Fraction], Field(min_length=1)]
    thresholds: list[Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]]
    images: Count


class GlimpseDepth(Subset):
    """experiments/glimpse_depth.py

    Attributes:
        model: which the modules are for.
        weights: see `Parameters`.
        paths: their folders.
        caps: on the share kept behind layer K; 1 is no cap.
    """

    model: str
    weights: str
    paths: Annotated[list[str], Field(min_length=1)]
    caps: Annotated[list[Fraction], Field(min_length=1)]


class SecondModel(Evaluate):
    """experiments/second_model.py

    Attributes:
        model: as the one at the top.
        weights: see `Parameters`.
        image_sizes: sides in pixels that the images are scaled to.
        downsample: whether to set the methods beside images of so few pixels, for a model of any image size.
    """

    model: str
    weights: str
    downsample: bool
    image_sizes: Annotated[list[Count], Field(min_length=1)]
