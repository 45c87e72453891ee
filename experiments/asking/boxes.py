"""Evidence boxes in the frame that the vision tower sees: image processors resize, pad and crop."""

from collections.abc import Iterable, Sequence
from typing import Any

Box = Sequence[float]


def seen_boxes(boxes: Iterable[Box], size: tuple[int, int], image_processor: Any) -> list[list[float]]:
    """Boxes of an image as parts of what the vision tower gets.

    Follows the processors of CLIP and LLaVA: padding to a square around the image (`do_pad`), resizing (to a size,
    which moves nothing in relative terms, or by the shortest edge), cropping at the centre. Processors that show the
    whole image (Qwen's, and LLaVA-NeXT's, whose visual tokens know their places in it) leave boxes as they are.

    Args:
        boxes: [x0, y0, x1, y1] each, in 0..1 of the image.
        size: width and height of the image in pixels.
        image_processor: of the model, with its settings as attributes.

    Returns:
        The same in 0..1 of the processed image, in order; without those that lie in what is cropped away.
    """
    if hasattr(image_processor, "image_grid_pinpoints") or hasattr(image_processor, "merge_size"):
        return [list(box) for box in boxes]
    start, extent = _frame(size, image_processor)
    if not any(start) and extent == list(size):
        return [list(box) for box in boxes]
    mapped = [[(box[edge] * size[edge % 2] - start[edge % 2]) / extent[edge % 2] for edge in range(4)] for box in boxes]
    visible = [[min(max(value, 0.0), 1.0) for value in box] for box in mapped]
    return [box for box in visible if box[0] < box[2] and box[1] < box[3]]


def _frame(size: tuple[int, int], image_processor: Any) -> tuple[list[float], list[float]]:
    """Top left corner and extent of the processed image, both as (x, y) in pixels of the original."""
    start, extent = [0.0, 0.0], [float(size[0]), float(size[1])]
    if getattr(image_processor, "do_pad", False):
        side = max(size)
        start = [-float((side - length) // 2) for length in size]
        extent = [float(side), float(side)]
    if getattr(image_processor, "do_center_crop", False):
        resized = _resized(extent, image_processor)
        crop = (image_processor.crop_size["width"], image_processor.crop_size["height"])
        for axis in (0, 1):
            scale = extent[axis] / resized[axis]
            start[axis] += (resized[axis] - crop[axis]) // 2 * scale
            extent[axis] = crop[axis] * scale
    return start, extent


def _resized(extent: list[float], image_processor: Any) -> list[int]:
    """Width and height in pixels after resizing."""
    wanted = image_processor.size
    if not getattr(image_processor, "do_resize", True):
        return [int(length) for length in extent]
    if shortest := wanted.get("shortest_edge"):
        return [int(shortest * length / min(extent)) for length in extent]
    return [wanted["width"], wanted["height"]]
