"""Answers of many settings to a benchmark, stored part by part: an interrupted run goes on, and shards share the work.

All settings prune one and the same run of the vision tower on each batch, unless a method works inside it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from experiments.asking import clip
from experiments.asking.answers import Batch, answer_batch
from experiments.asking.surroundings import wait
from experiments.benchmarking import batches, stored
from experiments.benchmarking.questions import Questions, QuestionsError
from experiments.benchmarking.settings import Setting, Unreachable
from experiments.benchmarking.stored import Run
from experiments.recorded import cells
from pruning.choosing.base import Method

HERE = Path(__file__).parent
CODE = [HERE / name for name in ("answer.py", "batches.py", "settings.py", "defaults.py")]
CODE.append(HERE.parents[1] / "pruning/presets.py")


@dataclass(frozen=True)
class Asked:
    """What is the same for all settings and benchmarks of a recipe.

    Attributes:
        model_name: names the results.
        image, system: of the model's preset.
        batch_size: questions that run together.
        max_new_tokens: where the benchmark itself says nothing.
        max_pixels: of an image, for models that take any size; None: the model's own.
        kept: whether to store which visual tokens stayed.
        timed: whether every setting runs alone and encodes the images itself, so that its seconds are its own.
    """

    model_name: str
    image: str
    system: str
    batch_size: int
    max_new_tokens: int
    max_pixels: int | None = None
    kept: bool = False
    timed: bool = False


class Prepared:
    """A setting with its CLIP model loaded and, by number of visual tokens, its methods."""

    def __init__(self, setting: Setting, model: PreTrainedModel) -> None:
        self.setting = setting
        self.layers = model.config.get_text_config().num_hidden_layers
        self.loaded = clip.loaded(setting.parameters, model.device)
        self._methods: dict[int, Method | Unreachable] = {}

    def method(self, visual_tokens: int) -> Method | Unreachable:
        """The method for such images, or why there is none."""
        if visual_tokens not in self._methods:
            try:
                self._methods[visual_tokens] = self.setting.for_image(visual_tokens, self.layers, self.loaded)
            except Unreachable as error:
                self._methods[visual_tokens] = error
        return self._methods[visual_tokens]

    def depends_on(self) -> dict[str, Any]:
        """What the answers of this setting depend on beside what is the same for all."""
        setting, found = self.setting, dict[str, Any]()
        found["setting"] = {
            name: getattr(setting, name) for name in ("method", "parameters", "budget", "tokens", "model")
        }
        made = setting.type(**setting.parameters) if setting.budget is None and setting.tokens is None else None
        parts = () if made is None else made.made_of
        found["code"] = cells.code_digest([setting.type, *(type(part) for part in parts)], *CODE)
        if "path" in setting.parameters:
            files = Path(setting.parameters["path"]).iterdir()
            found["modules"] = cells.files_digest(file for file in files if file.is_file())
        if "clip" in setting.parameters:
            found["clip"] = cells.model_digest(self.loaded["clip"])
        return found


def runs_of(
    settings: Sequence[Setting], questions: Questions, model: PreTrainedModel, digest: str, asked: Asked, out: Path
) -> dict[Run, Prepared]:
    """Every setting's run on a benchmark, its folder made.

    Args:
        settings: of the recipe.
        questions: of the benchmark.
        model: that answers; `digest` stands for its weights (`cells.model_digest`, which reads all of them).
        asked: the rest.
        out: folder of all results.

    Raises:
        QuestionsError: a method wants evidence boxes, and the benchmark has none.
    """
    if questions.question(0).boxes is None:
        for setting in settings:
            if setting.type.told:
                raise QuestionsError(f"{setting.method} needs evidence boxes, which {questions.name} has not")
    shared = {"model": digest, "questions": questions.identity, "max_new_tokens": new_tokens(questions, asked)}
    told = ("image", "system", "batch_size", "max_pixels", "kept", "timed")
    shared |= {name: getattr(asked, name) for name in told}
    parts = batches.parts_of(len(questions), asked.batch_size)
    found = {}
    for setting in settings:
        prepared = Prepared(setting, model)
        keys = {"model": asked.model_name, "benchmark": questions.name}
        keys |= {"method": setting.method, "setting": setting.label}
        depends_on = prepared.depends_on() | shared
        found[stored.make(out, keys, parts, len(questions), depends_on, counted=setting.counted)] = prepared
    return found


def new_tokens(questions: Questions, asked: Asked) -> int:
    """The most tokens of an answer."""
    return questions.max_new_tokens or asked.max_new_tokens


def answer(
    runs: Mapping[Run, Prepared],
    questions: Questions,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    asked: Asked,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Answer the parts that are missing, every `shard[1]`-th from `shard[0]` on, and store each as it is done."""
    waiting = {run: set(run.missing) for run in runs}
    count = batches.parts_of(len(questions), asked.batch_size)
    todo = [part for part in range(shard[0], count, shard[1]) if any(part in missing for missing in waiting.values())]
    total = sum(len(batches.rows_of_part(part, len(questions), asked.batch_size)) for part in todo)

    def jobs() -> Iterator[tuple[int, bool, list[int]]]:
        for part in todo:
            rows = batches.rows_of_part(part, len(questions), asked.batch_size)
            grouped = batches.rows_of_batches(processor, model.config, questions, rows, asked.batch_size)
            for number, group in enumerate(grouped):
                yield part, number == len(grouped) - 1, group

    def made(job: tuple[int, bool, list[int]]) -> Batch:
        return batches.make_batch(processor, model.config, questions, job[2])

    limit, rows = new_tokens(questions, asked), {run: list[dict[str, Any]]() for run in runs}
    with tqdm(total=total, desc=questions.name, unit="question") as progress:
        for (part, last, _), batch in batches.prefetched(made, jobs()):
            current = {run: prepared for run, prepared in runs.items() if part in waiting[run]}
            for run, found in answer_all(current, model, processor, batch, limit, asked).items():
                rows[run] += found
            progress.update(len(batch.rows))
            if last:
                for run in current:
                    cells.write_table(run.part(part), pa.Table.from_pylist(rows[run], schema=stored.SCHEMA))
                rows = {run: [] for run in runs}


def answer_all(
    runs: Mapping[Run, Prepared],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch: Batch,
    max_new_tokens: int,
    asked: Asked,
) -> dict[Run, list[dict[str, Any]]]:
    """Rows of every run for one batch; those that cannot be had hold the reason."""
    methods = {run: prepared.method(batch.visual_tokens) for run, prepared in runs.items()}
    found = {
        run: [
            {"row": row, **question, "reason": str(method), "visual_tokens": batch.visual_tokens}
            for row, question in zip(batch.rows, batch.questions, strict=True)
        ]
        for run, method in methods.items()
        if isinstance(method, Unreachable)
    }
    able = {run: method for run, method in methods.items() if isinstance(method, Method)}
    together = [{run: method} for run, method in able.items()] if asked.timed else [able] if able else []
    for methods_of_run in together:
        wait(model.device)
        begun = time.perf_counter()
        tables = answer_batch(model, processor, methods_of_run.values(), batch, max_new_tokens)
        wait(model.device)
        share = (time.perf_counter() - begun) / (len(methods_of_run) * len(batch.rows))
        for run, table in zip(methods_of_run, tables, strict=True):
            found[run] = [{"row": row, "seconds": share, **answered} for row, answered in table.items()]
    if not asked.kept:
        for run in able:
            for one in found[run]:
                del one["kept"], one["merged"]
    return found
