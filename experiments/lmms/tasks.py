"""lmms-eval's tasks: their prompts and images as `Questions`, from the hub or from a folder of parquet files.

A folder holds one subfolder a task, with the parquet files of its split in any depth, as downloading the data set's
repository gives them (`hf download lmms-lab-encoder/POPE --repo-type dataset --local-dir DATA/pope`).
"""

import io
from pathlib import Path
from typing import Any

import datasets
import lmms_eval
import lmms_eval.api.metrics  # registers those that tasks name
from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.utils import load_yaml_config
from PIL import ExifTags, Image

from experiments.benchmarking.named import BENCHMARKS, LMMS
from experiments.benchmarking.questions import Question, QuestionsError
from experiments.recorded import cells

TASKS = Path(lmms_eval.__file__).parent / "tasks"
# Never the name of a model that tasks have a prompt of its own for.
MODEL_NAME = "pruned"
GQA_IMAGES = "testdev_balanced_images"


def load_config(name: str) -> dict[str, Any]:
    """The configuration of a benchmark's task, as lmms-eval's file has it and with the benchmark's own prompt options.

    Raises:
        QuestionsError: no such benchmark of lmms-eval.
    """
    if name not in BENCHMARKS or BENCHMARKS[name].source != LMMS:
        known = ", ".join(key for key, one in BENCHMARKS.items() if one.source == LMMS)
        raise QuestionsError(f"{name!r} is no benchmark that lmms-eval asks here. There are: {known}")
    path = TASKS / f"{BENCHMARKS[name].task}.yaml"
    # mmvet's functions ask for the key of an endpoint when they are imported: without them, see `_plain_functions`.
    judged = BENCHMARKS[name].judge
    config = load_yaml_config(str(path), mode="simple" if judged else "full")
    if judged:
        config |= _plain_functions(config)
    prompt = config.get("lmms_eval_specific_kwargs")
    if BENCHMARKS[name].prompt:
        config["lmms_eval_specific_kwargs"] = {"default": prompt["default"] | dict(BENCHMARKS[name].prompt)}
    return {key: value for key, value in config.items() if key != "tag"}


def load_task(name: str, data: Path | None = None) -> ConfigurableMessagesTask:
    """A benchmark's task with its data.

    Args:
        name: of the benchmark.
        data: folder of local parquet files, see the module's text; None: from the hub.

    Raises:
        QuestionsError: as `load_config`; no files for it in the folder.
    """
    config = load_config(name)
    if name == "gqa":
        config["process_docs"] = None  # which would copy an image into every question
    if data is not None:
        files = local_files(name, config, data)
        config |= {"dataset_path": "parquet", "dataset_name": None}
        config["dataset_kwargs"] = {"data_files": {config["test_split"]: [str(file) for file in files]}}
    else:
        config["dataset_kwargs"] = {}  # without `token: True`, which insists on a login that public data need not
    return ConfigurableMessagesTask(config=config, model_name=MODEL_NAME)


def local_files(name: str, config: dict[str, Any], data: Path, part: str | None = None) -> list[Path]:
    """The parquet files of a task's split in a folder, sorted.

    Args:
        name: of the benchmark.
        config: of its task.
        data: the folder.
        part: the data set's configuration; default: the task's own.

    Raises:
        QuestionsError: there are none.
    """
    # A repository of several configurations has a folder for each; files without one belong to the only one.
    part = part or config.get("dataset_name")
    folder, split = data / Path(BENCHMARKS[name].task).name, config["test_split"]
    found = sorted(folder.rglob(f"{split}*.parquet")) if folder.is_dir() else []
    named = [file for file in found if part in file.relative_to(folder).parts[:-1]]
    others = [file for file in found if len(file.relative_to(folder).parts) == 1 or file.parent.name == "data"]
    if not named and not others:
        raise QuestionsError(
            f"{name}: there is no {folder}/{f'{part}/' if part else ''}{split}*.parquet. Download the data set there "
            f"(hf download {config['dataset_path']} --repo-type dataset --local-dir {folder})"
        )
    return named or others


class TaskQuestions:
    """A task of lmms-eval as `Questions`: one prompt and one image each.

    Args:
        name: of the benchmark.
        data: as `load_task`.
        limit: only the first so many questions; 0 takes all.

    Raises:
        QuestionsError: as `load_task`; a task with messages of its own.
    """

    def __init__(self, name: str, data: Path | None = None, limit: int = 0) -> None:
        self.name = name
        self.task = load_task(name, data)
        if callable(self.task.config.doc_to_messages):
            raise QuestionsError(f"{name} builds messages of its own, which are not supported")
        self._texts = self.task.eval_docs_no_media
        self._count = min(limit, len(self._texts)) if limit else len(self._texts)
        self._images, self._image_of = _images(self.task, data, name)
        self.max_new_tokens: int | None = self.task.config.generation_kwargs.get("max_new_tokens")
        self._asked = [self._question(row) for row in range(self._count)]
        self.identity = self._identity(name, data)

    def __len__(self) -> int:
        return self._count

    def question(self, row: int) -> Question:
        return self._asked[row]

    def size(self, row: int) -> tuple[int, int]:
        return image_size(self._raw(row))

    def image(self, row: int) -> Image.Image:
        decoded = datasets.Image().decode_example(self._raw(row))
        shown = self.task.doc_to_visual(self.document(row) | {"image": decoded})
        if len(shown) != 1:
            raise QuestionsError(f"{self.name}: question {row} has {len(shown)} images; each must have one")
        return shown[0].convert("RGB")

    def document(self, row: int) -> dict[str, Any]:
        """What lmms-eval scores an answer by."""
        return dict(self._texts[row])

    def _raw(self, row: int) -> dict[str, Any]:
        held = self._images[row if self._image_of is None else self._image_of[self._texts[row]["imageId"]]]["image"]
        if held is None:
            raise QuestionsError(f"{self.name}: question {self._asked[row].id} has no image; each must have one")
        return dict(held)

    def _question(self, row: int) -> Question:
        document = self.document(row)
        prompt, target = self.task.doc_to_text(document), self.task.doc_to_target(document)
        if "answers" in document:  # where people gave ten, the task's own target is the word "answer"
            given = [one["answer"] if isinstance(one, dict) else one for one in document["answers"] or []]
            target = list(dict.fromkeys(given))
        answer = " | ".join(map(str, target)) if isinstance(target, list) else str(target)
        kind = str(document.get("category") or document.get("type") or "all")
        further = {"question": document["question"]} if BENCHMARKS[self.name].judge else None
        return Question(str(row), prompt, answer, kind, None, further)

    def _identity(self, name: str, data: Path | None) -> str:
        asked = [(question.prompt, question.answer) for question in self._asked]
        if data is None:
            source = [self.task.config.dataset_path, sorted(self._texts.info.download_checksums or {})]
        else:
            config = load_config(name)
            parts = (None, GQA_IMAGES) if self._image_of is not None else (None,)
            source = [cells.files_digest(local_files(name, config, data, part)) for part in parts]
        return cells.digest([name, asked, source])


def _images(
    task: ConfigurableMessagesTask, data: Path | None, name: str
) -> tuple[datasets.Dataset, dict[str, int] | None]:
    """The data set with the column `image`, not decoded; for GQA's, whose images lie apart, the row of each image."""
    documents = task.task_docs
    if name != "gqa" or "image" in documents.features:
        return documents.select_columns(["image"]).cast_column("image", datasets.Image(decode=False)), None
    config = load_config(name)
    if data is None:
        images = datasets.load_dataset(config["dataset_path"], GQA_IMAGES, split=config["test_split"])
    else:
        files = [str(file) for file in local_files(name, config, data, GQA_IMAGES)]
        images = datasets.load_dataset("parquet", data_files={"images": files}, split="images")
    rows = {number: row for row, number in enumerate(images["id"])}
    return images.cast_column("image", datasets.Image(decode=False)), rows


def image_size(held: dict[str, Any]) -> tuple[int, int]:
    """Width and height of an image as it will be shown, by its header."""
    source = io.BytesIO(held["bytes"]) if held.get("bytes") is not None else held["path"]
    with Image.open(source) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _plain_functions(config: dict[str, Any]) -> dict[str, Any]:
    """A judged task's prompt and image, without importing the module that asks its judge."""

    def doc_to_text(document: dict[str, Any], options: dict[str, Any]) -> str:
        return f"{options.get('pre_prompt', '')}{document['question']}{options.get('post_prompt', '')}"

    metrics = [{"metric": "judged", "aggregation": "mean", "higher_is_better": True}]
    plain = {"doc_to_text": doc_to_text, "doc_to_visual": "image", "doc_to_target": "answer", "metric_list": metrics}
    return plain | {"process_results": lambda document, results: {}}
