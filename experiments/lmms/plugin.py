"""This project as a model of lmms-eval: one method at one setting, on any of its tasks with one image a question.

    python -m lmms_eval --model pruned --model_args pretrained=llava-1.5-7b,method=vispruner,tokens=64 --tasks pope

The entry point of pyproject.toml tells lmms-eval of it. For several settings `python -m experiments.lmms` is faster: it
encodes every image once for all of them, and keeps its answers.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from experiments.asking import models
from experiments.asking.answers import answer_batch
from experiments.benchmarking import batches
from experiments.benchmarking.answer import Prepared
from experiments.benchmarking.questions import Question, QuestionsError
from experiments.benchmarking.settings import Setting, Unreachable, settings_of
from experiments.lmms.score import cut
from pruning.choosing.base import Method


class Requests:
    """Requests of lmms-eval as `Questions`.

    Args:
        requests: of a chat model.
        documents: task -> split -> documents, as the evaluator leaves them on the model.
    """

    name = "requests of lmms-eval"
    identity = ""
    max_new_tokens: int | None = None

    def __init__(self, requests: Sequence[Instance], documents: Any) -> None:
        self._requests, self._documents = requests, documents

    def __len__(self) -> int:
        return len(self._requests)

    def question(self, row: int) -> Question:
        return Question(str(row), self._requests[row].args[0], "")

    def size(self, row: int) -> tuple[int, int]:
        return self.image(row).size

    def image(self, row: int) -> Image.Image:
        """The only image of the messages that the task makes of its document.

        Raises:
            QuestionsError: there are none, several, or videos.
        """
        _, to_messages, _, number, task, split = self._requests[row].args
        messages = to_messages(self._documents[task][split][number])
        content = [part for message in messages for part in message["content"]]
        shown = [part["url"] for part in content if part["type"] != "text"]
        if len(shown) != 1 or not isinstance(shown[0], Image.Image):
            raise QuestionsError(f"{task}: question {number} shows {len(shown)} things; one image is supported")
        return shown[0].convert("RGB")


class Pruned(lmms):
    """A model with a pruning method.

    Args:
        pretrained: a preset of experiments/named/presets.py, or a folder.
        weights: a folder with the preset's weights.
        method: a name of the registry.
        tokens, budget: one of them: a published setting for LLaVA-1.5, or a share of the visual tokens.
        parameters: a JSON file with the method's parameters, which needs neither. lmms-eval splits at commas.
        batch_size: questions that run together.
        max_new_tokens: where a task says nothing.
        device: "auto", or as torch names it; lmms-eval's --device.
        max_batch_size: is given by lmms-eval and not used.

    Raises:
        ValueError: parameters that the method does not have, or no such setting.
        ModelError: the model cannot be loaded.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        weights: str | None = None,
        method: str = "full",
        tokens: int | None = None,
        budget: float | None = None,
        parameters: str | None = None,
        batch_size: int | str = 1,
        max_new_tokens: int = 128,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = int(batch_size)
        self.max_new_tokens = int(max_new_tokens)
        asked: dict[str, Any] = {}
        given = json.loads(Path(parameters).read_text(encoding="utf-8")) if parameters else {}
        if tokens is not None:
            asked["tokens"] = [int(tokens)]
        if budget is not None:
            asked["budgets"] = [float(budget)]
        if not asked:
            asked["settings"] = {"own": given}
        asked["parameters"] = given
        self.setting: Setting = settings_of(method, asked, pretrained)[0]
        self.accelerator, self._rank, self._world_size = _processes()
        where = f"cuda:{self.accelerator.local_process_index}" if torch.cuda.is_available() else "cpu"
        self._model, self.processor = models.load(
            pretrained, where if device in (None, "auto", "cuda") else str(device), weights=weights
        )
        self.prepared = Prepared(self.setting, self._model)

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answers in the order of the requests, greedy, cut where a task's `until` begins.

        Raises:
            Unreachable: the setting cannot be had on one of the images. lmms-eval scores whole tasks only.
        """
        answers: dict[int, str] = {}
        limits: dict[int, list[int]] = {}
        for row, request in enumerate(requests):
            asked = request.args[2].get("max_new_tokens") or self.max_new_tokens
            limits.setdefault(int(asked), []).append(row)
        questions, config = Requests(requests, self.task_dict), self._model.config

        def made(rows: list[int]) -> Any:
            return batches.make_batch(self.processor, config, questions, rows)

        with tqdm(total=len(requests), desc=self.setting.method, disable=self.rank > 0) as progress:
            for limit, rows in sorted(limits.items()):
                windows = range(0, len(rows), self.batch_size * batches.BATCHES_A_PART)
                groups = (
                    group
                    for start in windows
                    for group in batches.rows_of_batches(
                        self.processor, config, questions, rows[start : start + windows.step], self.batch_size
                    )
                )
                for _, batch in batches.prefetched(made, groups):
                    method = self.prepared.method(batch.visual_tokens)
                    if not isinstance(method, Method):
                        raise Unreachable(f"{self.setting.method}, {self.setting.label}: {method}")
                    (found,) = answer_batch(self._model, self.processor, [method], batch, limit)
                    answers |= {row: one["prediction"] for row, one in found.items()}
                    progress.update(len(batch.rows))
        return [cut(answers[row], request.args[2].get("until") or []) for row, request in enumerate(requests)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("pruned models answer questions; tasks that rank given answers are not supported")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError(
            "pruned models answer one question at a time; tasks of several rounds are not supported"
        )


def _processes() -> tuple[Any, int, int]:
    """accelerate's view of the processes: one, or those that torchrun or accelerate launched."""
    from accelerate import Accelerator

    accelerator = Accelerator()
    return accelerator, accelerator.process_index, accelerator.num_processes
