"""`image: pad` and `system: vicuna`: what the vision tower and the language model get, and where boxes then are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, ProcessorMixin

from experiments.asking.boxes import seen_boxes
from experiments.asking.handling import handled
from experiments.asking.inputs import build_inputs
from experiments.asking.models import load
from experiments.asking.processors import load_processor
from experiments.named.presets import PRESETS, ModelError
from tests.benchmarking.tiny_deep import save_llava, save_qwen

SENTENCE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER : <image>"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


def processor_of(folder: Path, image: Any = "crop", system: Any = "none") -> ProcessorMixin:
    config = AutoConfig.from_pretrained(folder)
    return handled(load_processor(folder, config), config, image, system)


def pixels(llava: Path, image: Image.Image, how: str) -> np.ndarray:
    """What the tower gets, as 8-bit values."""
    processor = processor_of(llava, image=how)
    seen = build_inputs(processor, [image], ["what"])["pixel_values"][0].numpy()
    mean, std = (
        np.array(getattr(processor.image_processor, name))[:, None, None] for name in ("image_mean", "image_std")
    )
    return np.round((seen * std + mean) * 255).astype(int)


def test_cropping_shows_the_centre_and_padding_all_of_a_wide_image(llava: Path) -> None:
    image = Image.new("RGB", (640, 480), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 60, 480))  # left of what a crop at the centre shows
    cropped, padded = pixels(llava, image, "crop"), pixels(llava, image, "pad")
    assert cropped.shape == padded.shape == (3, 336, 336)
    assert (cropped[2] < 5).all(), "the blue stripe is cropped away"
    # 640 x 640 around it: 80 rows above and below in the colour of the mean, 42 of 336.
    assert (abs(padded[:, :40] - np.array([122, 116, 104])[:, None, None]) <= 2).all()
    assert (padded[2, 46:290, 2:28] > 195).all() and (padded[2, 46:290, 36:] < 5).all()


def test_boxes_follow(llava: Path) -> None:
    box = [[0.0, 0.0, 0.5, 0.5]]
    crop, pad = (processor_of(llava, image=how).image_processor for how in ("crop", "pad"))
    assert seen_boxes(box, (640, 480), crop) == [pytest.approx([0, 0, 0.5, 0.5], abs=0.01)]
    assert seen_boxes(box, (640, 480), pad) == [pytest.approx([0, 0.125, 0.5, 0.5], abs=0.01)]
    left = [[0.0, 0.0, 0.1, 1.0]]  # not to be seen where the image is cropped
    assert seen_boxes(left, (640, 480), crop) == []
    assert seen_boxes(left, (640, 480), pad) == [pytest.approx([0, 0.125, 0.1, 0.875], abs=0.01)]


def test_the_system_sentence_stands_in_front_of_every_prompt(llava: Path) -> None:
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]}]
    plain, told = (
        processor_of(llava, system=system).apply_chat_template(conversation, tokenize=False)
        for system in ("none", "vicuna")
    )
    assert told.startswith(SENTENCE)
    assert told.removeprefix(SENTENCE[: SENTENCE.index("USER")]) == plain


def test_published_llava_is_asked_as_in_the_papers(llava: Path) -> None:
    for name in ("llava-1.5-7b", "llava-1.5-13b"):
        assert (PRESETS[name].image, PRESETS[name].system) == ("pad", "vicuna")
    _, processor = load("llava-1.5-7b", device="cpu", weights=str(llava))
    assert processor.image_processor.do_pad and processor.chat_template.startswith(SENTENCE[:20])
    _, own = load(str(llava), device="cpu")
    assert not getattr(own.image_processor, "do_pad", False)


def test_padding_is_refused_for_models_of_other_images(tmp_path: Path) -> None:
    folder = save_qwen(tmp_path)
    with pytest.raises(ModelError, match="image: pad is LLaVA-1.5's"):
        processor_of(folder, image="pad")
