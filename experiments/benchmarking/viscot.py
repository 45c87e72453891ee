"""Visual-CoT's twelve sets (arXiv 2403.16999), as GlimpsePrune's authors ask them (arXiv 2508.01548).

A folder holds `benchmark/NAME.json`, as in either repository's `viscot_benchmark`, and the images that these name.
"""

import ast
import json
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.asking.images import load_image
from experiments.benchmarking.named import BENCHMARKS
from experiments.benchmarking.questions import Question, QuestionsError
from experiments.recorded import cells

# The models are not asked for a box, though the files do.
BOX_SENTENCE = "Please provide the bounding box coordinate of the region that can help you answer the question better."
IMAGE_MARK = "<image>\n"


class VisualCoT:
    """One of the sets as `Questions`.

    Args:
        name: of the benchmark: viscot_NAME, or viscot_NAME_brief, which asks for a word or a phrase.
        data: the folder.
        limit: only the first so many questions; 0 takes all.

    Raises:
        QuestionsError: no folder given, no such file in it, or a file of another form.
    """

    max_new_tokens: int | None = None

    def __init__(self, name: str, data: Path | None = None, limit: int = 0) -> None:
        if data is None:
            raise QuestionsError(f"{name}: give --data, a folder with benchmark/*.json and the images that these name")
        self.name, self._data = name, data
        file = data / "benchmark" / f"{BENCHMARKS[name].task}.json"
        if not file.exists():
            raise QuestionsError(f"{name}: {file} is missing; it is in viscot_benchmark of Visual-CoT's repository")
        rows = json.loads(file.read_text(encoding="utf-8"))
        self._rows: list[dict[str, Any]] = rows[:limit] if limit else rows
        after = str(BENCHMARKS[name].prompt.get("after", ""))
        try:
            self._asked = [read(row, number, after) for number, row in enumerate(self._rows)]
        except (KeyError, IndexError, TypeError, ValueError, SyntaxError) as error:
            raise QuestionsError(f"{name}: {file} is not as Visual-CoT's files are: {error!r}") from error
        self.identity = cells.digest([name, [(one.prompt, one.answer) for one in self._asked], self._sizes()])
        self._boxes: dict[int, list[list[float]]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def question(self, row: int) -> Question:
        """With its box as a part of the image, whose size is read for it."""
        question = self._asked[row]
        if row not in self._boxes:
            width, height = self.size(row)
            pixels = (question.further or {})["box"]
            self._boxes[row] = [[pixels[edge] / (width, height)[edge % 2] for edge in range(4)]]
        return Question(
            question.id, question.prompt, question.answer, question.type, self._boxes[row], question.further
        )

    def size(self, row: int) -> tuple[int, int]:
        with Image.open(self._path(row)) as image:
            width, height = image.size
            turned = image.getexif().get(274, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)

    def image(self, row: int) -> Image.Image:
        return load_image(self._path(row))

    def _path(self, row: int) -> Path:
        """The image; some of the files leave out a folder `val` that the images lie in."""
        named = Path(self._rows[row]["image"][0])
        for path in (named, *(Path(*named.parts[:at], "val", *named.parts[at:]) for at in range(1, len(named.parts)))):
            if (self._data / path).is_file():
                return self._data / path
        raise QuestionsError(f"{self.name}: the image {self._data / named} is missing")

    def _sizes(self) -> list[int]:
        """What stands for the images: their sizes in bytes, which to hash would mean to read all of them."""
        return [self._path(row).stat().st_size for row in range(len(self._rows))]


def read(row: dict[str, Any], number: int, after: str) -> Question:
    """One row of a file: the question without what asks for a box, and what the authors tell their judge it was.

    Raises:
        KeyError, IndexError, TypeError, ValueError, SyntaxError: it has another form.
    """
    told = row["conversations"][0]["value"].replace(BOX_SENTENCE, "").strip()
    box = [float(edge) for edge in ast.literal_eval(row["image"][1].split("###")[1])]
    if len(box) != 4:
        raise ValueError(f"row {number} has a box of {len(box)} numbers")
    prompt = told.replace(IMAGE_MARK, "") + after
    further = {"told": told, "box": box}
    return Question(str(number), prompt, str(row["conversations"][-1]["value"]), "all", None, further)
