"""The sections of params.yaml for the stages that train what is shipped."""

from typing import Annotated, Any, Literal

from pydantic import Field

from experiments.parameters.checks import Count, Section, Seed


class Train(Section):
    """experiments/train.py; steps are those of each phase of experiments/testbed/phases.py."""

    seed: Seed
    steps: Annotated[dict[Literal["words", "looks", "chains", "steps", "vision"], Count], Field(min_length=5)]


class TrainQwen(Section):
    """experiments/train_qwen.py; steps are those of each phase of experiments/testbed/phases_qwen.py."""

    seed: Seed
    steps: Annotated[dict[Literal["vision", "joint"], Count], Field(min_length=2)]


class TrainGlimpse(Section):
    """experiments/train_glimpse.py

    Attributes:
        model: which the modules are for; by default the run's own name.
        data: "scenes" for freshly drawn ones, a table like data/scenes/*.parquet, or one of Visual-CoT's jsonl files.
        images: folder that the jsonl's images are relative to.
        questions: how many to draw; of a file, 0 takes all.
        config: fields of pruning.glimpse.configuration.GlimpseConfig; empty: the one that was published for the model.
        token_scale: what the weight of the glimpse token's norm starts at; 1 in the paper.
        warm_up: share of the steps.
        accumulation: batches of `batch_size` (on each device) for one step.
        workers: processes that prepare batches.
    """

    model: str | None = None
    data: str
    images: str | None = None
    questions: Annotated[int, Field(ge=0)]
    seed: Seed
    config: dict[str, Any]
    token_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    epochs: Count
    batch_size: Count
    accumulation: Count
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    warm_up: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    log_every: Count
    save_every: Count
    workers: Annotated[int, Field(ge=0)]
