"""recipes/*.yaml, checked: a paper's models, benchmarks and settings, for one command."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from experiments.benchmarking.answer import Asked
from experiments.benchmarking.named import BENCHMARKS
from experiments.benchmarking.settings import Setting, settings_of
from experiments.named import presets
from experiments.parameters.checks import Count, Fraction, Section, no_repeats, one_of
from experiments.parameters.sections import Judge
from pruning.models.flops import CONVENTIONS


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names every key to change."""


class MethodSettings(Section):
    """What a recipe asks of one method.

    Attributes:
        tokens: numbers that papers name; the settings are then `pruning.paper`'s for the recipe's model.
        budgets: shares of the visual tokens, as the mean over the decoder layers' inputs.
        settings: all parameters, by labels that tables show.
        parameters: those that go beside tokens, budgets and settings.
    """

    tokens: list[Count] = Field(default_factory=list)
    budgets: list[Fraction] = Field(default_factory=list)
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)


class PublishedNumbers(Section):
    """Which file of data/published stands beside the table, and what our names are called there.

    Attributes:
        file: its name, without suffix.
        metric: of its rows.
        methods: "METHOD/SETTING" or "METHOD" to the method there; without an entry the method's own name.
        benchmarks: benchmark to the `setting` there. None named: the file's values are means over the paper's
            benchmarks, and stand beside ours.
        settings: our settings to the `setting` there; without an entry the number of tokens has to be the same.
    """

    file: str
    metric: str
    methods: dict[str, str] = Field(default_factory=dict)
    benchmarks: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, str] = Field(default_factory=dict)


class Recipe(Section):
    """One table of a paper.

    Attributes:
        title: what it is, with the paper.
        departures: what is known to be done in another way than the paper's code; for the reader.
        model: a preset of experiments/named/presets.py.
        benchmarks: name -> the metric that the table shows; null: the benchmark's own.
        methods: name -> its settings.
        batch_size: questions that run together.
        max_new_tokens: where a benchmark says nothing.
        max_pixels: of an image, for models that take any size; null: the model's own.
        kept: whether to store which visual tokens stayed.
        timed: whether every setting runs alone, so that the table can tell its seconds a question.
        flops: a paper's convention whose FLOPs stand beside the exact ones.
        published: numbers to print beside.
        judge: who scores benchmarks that need a judge.
    """

    title: str
    departures: list[str] = Field(default_factory=list)
    model: str
    benchmarks: Annotated[dict[str, str | None], Field(min_length=1)]
    methods: Annotated[dict[str, MethodSettings | None], Field(min_length=1)]
    batch_size: Count
    max_new_tokens: Count
    max_pixels: Count | None = None
    kept: bool = False
    timed: bool = False
    flops: str | None = None
    published: PublishedNumbers | None = None
    judge: Judge | None = None

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        presets.find(model)
        return model

    @field_validator("benchmarks")
    @classmethod
    def _benchmarks_exist(cls, benchmarks: dict[str, str | None]) -> dict[str, str | None]:
        for name in benchmarks:
            one_of("benchmark", name, BENCHMARKS)
        return benchmarks

    @field_validator("flops")
    @classmethod
    def _convention_exists(cls, flops: str | None) -> str | None:
        return None if flops is None else one_of("convention of FLOPs", flops, CONVENTIONS)

    @model_validator(mode="after")
    def _methods_fit(self) -> "Recipe":
        no_repeats([f"{setting.method}/{setting.label}" for setting in self.settings])
        if self.judge is None and (judged := [name for name in self.benchmarks if BENCHMARKS[name].judge]):
            raise ValueError(f"{', '.join(judged)}: a language model scores the answers; name it under `judge`")
        return self

    @cached_property
    def settings(self) -> list[Setting]:
        """Every setting of every method, in the recipe's order."""
        return [
            setting
            for name, asked in self.methods.items()
            for setting in settings_of(name, (asked or MethodSettings()).model_dump(), self.model)
        ]

    def asked(self) -> Asked:
        """What all answers have in common."""
        preset = presets.find(self.model)
        name = Path(self.model).name if self.model not in presets.PRESETS else self.model
        own = {key: getattr(self, key) for key in ("batch_size", "max_new_tokens", "max_pixels", "kept", "timed")}
        return Asked(name, preset.image, preset.system, **own)


def load(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: no such file, not YAML, or keys and values that cannot be used.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise RecipeError(f"{path}: there is no such recipe. There are: {', '.join(known) or 'none'}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {error}") from error
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, one['loc'])) or 'recipe'}: {one['msg']}" for one in error.errors()]
        raise RecipeError("\n".join([f"{path} cannot be used:", *lines])) from None
