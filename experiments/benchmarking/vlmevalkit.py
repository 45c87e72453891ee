"""This project as a model of VLMEvalKit: one method at one setting, on its benchmarks with one image a question.

    python -m experiments.benchmarking.vlmevalkit CHECKOUT --model llava-1.5-7b --method vispruner --tokens 64 -- \\
        --data MMBench_DEV_EN --work-dir OUT

CHECKOUT is a clone of VLMEvalKit, installed beside this project; what follows `--` goes to its run.py, `--model` aside.
With torchrun in place of python every process takes its share. VLMEvalKit has no way to be told of a model but its
dictionary of models, which gets one entry more for the time of this process.
"""

import argparse
import importlib
import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.asking import models
from experiments.asking.answers import answer_batch
from experiments.asking.images import load_image
from experiments.benchmarking import batches
from experiments.benchmarking.answer import Prepared
from experiments.benchmarking.questions import Question, QuestionsError
from experiments.benchmarking.settings import Setting, Unreachable, settings_of

RUN = "run.py"


class CheckoutError(ValueError):
    """No checkout of VLMEvalKit; the message says what to do."""


class Message:
    """One message of VLMEvalKit as `Questions`: an image, and all texts with line breaks between them."""

    name = "VLMEvalKit"
    identity = ""
    max_new_tokens: int | None = None

    def __init__(self, message: Sequence[Mapping[str, str]]) -> None:
        images = [part["value"] for part in message if part["type"] == "image"]
        if len(images) != 1:
            raise QuestionsError(f"a question with {len(images)} images; each must have one")
        self._image = load_image(images[0])
        self._text = "\n".join(part["value"] for part in message if part["type"] == "text")

    def __len__(self) -> int:
        return 1

    def question(self, row: int) -> Question:
        return Question("0", self._text, "")

    def size(self, row: int) -> tuple[int, int]:
        return self._image.size

    def image(self, row: int) -> Image.Image:
        return self._image


class Answers:
    """A loaded model with a method, which answers one message after the other, greedily.

    Args:
        model: a preset or a folder; `weights` a folder with the preset's weights.
        setting: of the method.
        max_new_tokens: of an answer.
    """

    def __init__(self, model: str, setting: Setting, weights: str | None = None, max_new_tokens: int = 1024) -> None:
        self._model, self._processor = models.load(model, weights=weights)
        self._prepared, self._max_new_tokens = Prepared(setting, self._model), max_new_tokens

    def answer(self, message: Sequence[Mapping[str, str]]) -> str:
        """The answer to a message.

        Raises:
            QuestionsError: it has no image, or several.
            Unreachable: the setting cannot be had on the image.
        """
        batch = batches.make_batch(self._processor, self._model.config, Message(message), [0])
        method = self._prepared.method(batch.visual_tokens)
        if isinstance(method, Unreachable):
            raise method
        ((found,),) = (
            table.values()
            for table in answer_batch(self._model, self._processor, [method], batch, self._max_new_tokens)
        )
        return str(found["prediction"])


def model_class() -> type:
    """The model's class, derived from that of the VLMEvalKit which can be imported."""
    base: type = importlib.import_module("vlmeval.vlm.base").BaseModel

    class Pruned(base):  # type: ignore[misc, valid-type]
        """See `Answers`."""

        INSTALL_REQ = False
        INTERLEAVE = False

        def __init__(self, **arguments: Any) -> None:
            super().__init__()
            self.answers = Answers(**arguments)

        def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
            """The answer to a message; prompts are VLMEvalKit's own."""
            return self.answers.answer(message)

    return Pruned


def launch(checkout: Path, name: str, arguments: dict[str, Any], options: list[str]) -> None:
    """Run a checkout's run.py with one model more.

    Args:
        checkout: folder of a clone.
        name: of the model there.
        arguments: of `Answers`.
        options: for run.py.

    Raises:
        CheckoutError: it is none.
    """
    if not (checkout / RUN).exists() or not (checkout / "vlmeval").is_dir():
        raise CheckoutError(f"{checkout} is no clone of VLMEvalKit: there is no {RUN} and vlmeval in it")
    path, given = list(sys.path), list(sys.argv)
    sys.path.insert(0, str(checkout.resolve()))
    known = importlib.import_module("vlmeval.config").supported_VLM
    known[name] = partial(model_class(), **arguments)
    sys.argv = [RUN, "--model", name, *options]
    try:
        runpy.run_path(str(checkout / RUN), run_name="__main__")
    finally:
        known.pop(name, None)
        sys.path[:], sys.argv[:] = path, given


def _at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands in front of and behind the first `--`."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--model", required=True, help="a preset of experiments/named/presets.py, or a folder")
    parser.add_argument("--weights", help="folder of the model and its processor; default: the preset's")
    parser.add_argument("--method", default="full")
    parser.add_argument("--tokens", type=int, help="a published setting for LLaVA-1.5")
    parser.add_argument("--budget", type=float, help="a share of the visual tokens")
    parser.add_argument("--parameters", type=json.loads, default={}, help="of the method, as JSON")
    parser.add_argument("--max-new-tokens", type=int, default=1024)
    ours, theirs = _at_dashes(sys.argv[1:])
    given = parser.parse_args(ours)
    try:
        asked = {"tokens": [given.tokens] if given.tokens else [], "budgets": [given.budget] if given.budget else []}
        own = {} if given.tokens or given.budget else {"own": {}}
        (setting,) = settings_of(given.method, asked | {"settings": own, "parameters": given.parameters}, given.model)
        name = f"pruned-{Path(given.model).name}-{setting.method}-{setting.label}"
        arguments = {"model": given.model, "setting": setting, "weights": given.weights}
        launch(given.checkout, name, arguments | {"max_new_tokens": given.max_new_tokens}, theirs)
    except ValueError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
