"""Prompts and batches: what the processor's chat template gives, padded on the left, or one clear error."""

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from experiments.asking.images import ImageError
from experiments.asking.inputs import InputError, build_inputs
from tests.tiny_processors import processor_for

IMAGE_TOKEN = 3
SIDE, PATCH = 16, 4
TOKENS = (SIDE // PATCH) ** 2


@pytest.fixture
def processor():
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=PATCH)
    return processor_for(
        LlavaConfig(vision_config=vision, text_config=LlamaConfig(vocab_size=40), image_token_index=IMAGE_TOKEN)
    )


def picture(colour: str = "red", size: tuple[int, int] = (20, 12)) -> Image.Image:
    return Image.new("RGB", size, colour)


def image_tokens(inputs) -> list[int]:
    return (inputs["input_ids"] == IMAGE_TOKEN).sum(1).tolist()


def test_one_sample_is_what_the_chat_template_gives(processor):
    question = "what colour is the circle ?"
    content = [{"type": "image", "image": picture()}, {"type": "text", "text": question}]
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    inputs = build_inputs(processor, [picture()], [question])
    assert inputs.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(inputs[name], tensor), name


def test_batch_is_padded_on_the_left_and_holds_the_single_samples(processor):
    images = [[picture("red"), picture("blue")], [], picture("blue")]
    questions = ["yes", "what colour is the circle ?", "two"]
    batch = build_inputs(processor, images, questions)
    assert image_tokens(batch) == [2 * TOKENS, 0, TOKENS]
    assert batch["pixel_values"].shape == (3, 3, SIDE, SIDE)
    for row, (image, question) in enumerate(zip(images, questions, strict=True)):
        single = build_inputs(processor, [image], [question])
        length = single["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, -length:], single["input_ids"][0])
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - length) + [1] * length
    assert torch.equal(batch["pixel_values"][2:], build_inputs(processor, [picture("blue")], ["two"])["pixel_values"])


@pytest.mark.parametrize("images", [[[]], [[], []], [[], picture()]])
def test_samples_without_an_image(processor, images):
    inputs = build_inputs(processor, images, ["yes"] * len(images))
    assert image_tokens(inputs) == [TOKENS if image else 0 for image in images]
    assert ("pixel_values" in inputs) == any(image != [] for image in images)


def test_any_kind_of_image_reaches_the_model_the_same_way(processor, tmp_path):
    path = tmp_path / "picture.png"
    picture().save(path)
    transparent = picture().convert("RGBA")
    expected = build_inputs(processor, [picture()], ["yes"])["pixel_values"]
    for source in (path, str(path), path.read_bytes(), transparent, [path]):
        assert torch.equal(build_inputs(processor, [source], ["yes"])["pixel_values"], expected)


@pytest.mark.parametrize("question", ["", "   \n", None, 7])
def test_empty_question(processor, question):
    with pytest.raises(InputError, match="sample 1: the question is empty"):
        build_inputs(processor, [picture(), picture()], ["yes", question])


def test_different_numbers_of_images_and_questions(processor):
    with pytest.raises(InputError, match="1 entries of images for 2 as questions"):
        build_inputs(processor, [picture()], ["yes", "no"])
    with pytest.raises(InputError, match="at least one sample"):
        build_inputs(processor, [], [])
    with pytest.raises(InputError, match="one string as questions"):
        build_inputs(processor, [picture()] * 3, "yes")


def test_question_with_a_placeholder_of_its_own(processor):
    with pytest.raises(InputError, match="sample 0: 2 image placeholders '<image>' for 1 images; the question itself"):
        build_inputs(processor, [picture()], ["what is <image> ?"])


def test_placeholders_are_compared_sample_by_sample(processor):
    """A question's own placeholder must not take the image that a broken template forgot in another sample."""
    processor.chat_template = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}"
    with pytest.raises(InputError, match=r"sample 0: 0 image placeholders '<image>' for 1 images; .*check the"):
        build_inputs(processor, [picture(), []], ["yes", "no <image>"])


def test_unreadable_image_names_its_sample(processor, tmp_path):
    with pytest.raises(ImageError, match=r"sample 1: .*absent\.png: there is no such image file"):
        build_inputs(processor, [picture(), [picture(), tmp_path / "absent.png"]], ["yes", "no"])


def test_processor_without_chat_template_or_padding_token(processor):
    processor.tokenizer.pad_token = None
    with pytest.raises(InputError, match="no padding token"):
        build_inputs(processor, [picture(), picture()], ["yes", "no"])
    assert build_inputs(processor, [picture()], ["yes"])["input_ids"].shape[0] == 1
    processor.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        build_inputs(processor, [picture()], ["yes"])
