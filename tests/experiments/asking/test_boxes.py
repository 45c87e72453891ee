"""Boxes follow what the image processors do to the pixels."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from experiments.asking.boxes import seen_boxes

SQUARE = {"height": 96, "width": 96}
SHORTEST = {"shortest_edge": 96}
PROCESSORS = {
    "squashed": CLIPImageProcessorPil(size=SQUARE, do_center_crop=False),
    "cropped": CLIPImageProcessorPil(size=SHORTEST, crop_size=SQUARE),
    "cropped narrower": LlavaImageProcessorPil(size=SHORTEST, crop_size={"height": 80, "width": 60}),
    "padded": LlavaImageProcessorPil(size=SQUARE, do_pad=True, do_center_crop=False),
    "padded and cropped": LlavaImageProcessorPil(size=SHORTEST, crop_size=SQUARE, do_pad=True),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(200, 120), (90, 240), (130, 130)])
def test_a_painted_box_is_where_it_says(name: str, size: tuple[int, int]) -> None:
    box = [0.4, 0.45, 0.55, 0.6]
    image = Image.new("RGB", size, "black")
    edges = [value * size[edge % 2] for edge, value in enumerate(box)]
    ImageDraw.Draw(image).rectangle([edges[0], edges[1], edges[2] - 1, edges[3] - 1], fill=(255, 0, 0))
    # The mean that pads is no pure red, so the painted box is what is red and not blue.
    pixels = np.asarray(PROCESSORS[name](image, do_normalize=False)["pixel_values"][0])
    rows, columns = np.nonzero((pixels[0] > 0.5) & (pixels[2] < 0.2))
    height, width = pixels.shape[1:]
    painted = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
    (found,) = seen_boxes([box], size, PROCESSORS[name])
    assert found == pytest.approx(painted, abs=2 / min(width, height))


def test_boxes_in_what_is_cropped_away_are_gone_and_others_are_cut() -> None:
    boxes = [[0.0, 0.2, 0.1, 0.4], [0.1, 0.0, 0.9, 1.0]]
    assert seen_boxes(boxes, (200, 100), PROCESSORS["cropped"]) == [[0.0, 0.0, 1.0, 1.0]]


def test_processors_that_show_the_whole_image_move_nothing() -> None:
    boxes = [[0.1, 0.2, 0.3, 0.4]]
    assert seen_boxes(boxes, (200, 100), PROCESSORS["squashed"]) == boxes
