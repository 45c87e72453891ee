"""The second embedded model: training code that computes what the stock model does, and the shipped weights."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AttentionInterface,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
)

import pruning
from experiments.asking import answers, benchmarks, models
from experiments.asking.inputs import build_inputs
from experiments.testbed.architecture import DECODER_LAYERS, GROWTH
from experiments.testbed.architecture_qwen import build_model
from experiments.testbed.descriptions import describe
from experiments.testbed.phases import ALL_LOOKS
from experiments.testbed.phases_qwen import EQUAL_WINDOWS, RESOLUTIONS, Joint, encode, equal_windows, pictures, prompt
from experiments.testbed.questions import TYPES
from experiments.testbed.scenes import Scene, render, sample_scene

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "data/models/scenes-qwen"


@pytest.fixture(scope="module")
def shipped() -> tuple[PreTrainedModel, ProcessorMixin]:
    return models.load("scenes-qwen")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(np.random.default_rng(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def fresh() -> Qwen2_5_VLForConditionalGeneration:
    """The model as training starts it."""
    return build_model(LlavaForConditionalGeneration.from_pretrained(REPOSITORY / "data/models/scenes-llava"), 0)


def test_the_decoder_starts_as_llavas(fresh: Qwen2_5_VLForConditionalGeneration) -> None:
    """The same logits for a text: biases of 0, and three equal axes rotate as one."""
    llava, processor = models.load("scenes-llava")
    tokens = processor.tokenizer("is there a red circle ?", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = llava.model.language_model(tokens).last_hidden_state
        torch.testing.assert_close(fresh.model.language_model(tokens).last_hidden_state, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", RESOLUTIONS)
def test_equal_windows_are_the_stock_towers(
    fresh: Qwen2_5_VLForConditionalGeneration, scenes: list[Scene], side: int
) -> None:
    batch = pictures(scenes, side)
    AttentionInterface.register(EQUAL_WINDOWS, equal_windows)
    with torch.no_grad():
        stock = fresh.model.visual(batch["pixels"].flatten(0, 1), batch["grid_thw"]).pooler_output
        fresh.model.visual.config._attn_implementation = EQUAL_WINDOWS
        try:
            tokens, _ = encode(fresh, batch)
        finally:
            fresh.model.visual.set_attn_implementation("sdpa")
    torch.testing.assert_close(tokens.flatten(0, 1), stock, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", RESOLUTIONS)
def test_training_prompts_are_the_processors(
    shipped: tuple[PreTrainedModel, ProcessorMixin], scenes: list[Scene], side: int
) -> None:
    """Embeddings and positions of a prompt put together in training are those of the model on real inputs."""
    model, processor = shipped
    text = "what color is the dot ?"
    inputs = build_inputs(processor, [render(scenes[0]).resize((side, side))], [text])
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"]
    )
    tokens = (side // 8) ** 2
    with torch.no_grad():
        visual = torch.zeros(1, tokens, model.config.text_config.hidden_size)
        prefix, packed_positions = prompt(model, visual, ALL_LOOKS)
        embedded = model.model.language_model.embed_tokens(inputs["input_ids"])
    text_tokens = len(text.split()) + 1  # ASSISTANT:
    assert inputs["input_ids"].shape[1] == prefix.shape[1] + text_tokens
    is_text = (inputs["input_ids"] != model.config.image_token_id)[0, :-text_tokens]
    assert torch.equal(prefix[0, is_text], embedded[0, :-text_tokens][is_text])
    assert torch.equal(packed_positions[:, :, : positions.shape[2]], positions)


def test_batches_are_of_one_resolution_each(fresh: Qwen2_5_VLForConditionalGeneration) -> None:
    batches = [Joint(fresh, batch_size=2).draw(np.random.default_rng(seed)) for seed in range(12)]
    assert {batch["words"].shape[1] for batch in batches} == {144, 64, 16}


def test_layers_that_are_the_identity_are_not_trained_further(
    fresh: Qwen2_5_VLForConditionalGeneration,
) -> None:
    names = [name for name, _ in Joint(fresh).parameters()]
    trained = {int(name.split(".")[3]) for name in names if "language_model.layers" in name}
    (_, _), (in_front, behind) = GROWTH
    assert trained == set(range(in_front, DECODER_LAYERS - behind))
    assert not any("embed_tokens" in name for name in names)


def test_every_object_keeps_a_token_of_its_own(scenes: list[Scene]) -> None:
    """At the low resolution a visual token covers 12 x 12 pixels of the scene, more than the dot does."""
    for scene in scenes:
        assert describe(scene, grid=8).centre.sum() == len(scene.items) + 1


@pytest.mark.parametrize("side", [96, 64])
def test_the_shipped_model_answers_at_both_resolutions(
    shipped: tuple[PreTrainedModel, ProcessorMixin], side: int
) -> None:
    """On a subset: .85 over all, .70 in every type but `relay`."""
    model, processor = shipped
    questions = benchmarks.load("scenes", 220).map(lambda row: {"image": row["image"].resize((side, side))})
    right: Counter[str] = Counter()
    for batch in answers.make_batches(processor, model.config, questions, 30):
        assert batch.visual_tokens == (side // 8) ** 2
        texts, _ = answers.answer(model, processor, pruning.make("full"), batch.inputs, max_new_tokens=4)
        for text, question in zip(texts, batch.questions, strict=True):
            right[question["type"]] += answers.matches(text, question["answer"])
    asked_of = Counter(questions["type"])
    assert all(right[kind] / asked_of[kind] >= (0.5 if kind == "relay" else 0.7) for kind in TYPES), right
    assert sum(right.values()) / len(questions) >= 0.85


def test_the_shipped_model_is_stock_small_and_complete(shipped: tuple[PreTrainedModel, ProcessorMixin]) -> None:
    model, _ = shipped
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    vision = model.config.vision_config
    assert 0 < len(vision.fullatt_block_indexes) < vision.depth  # windowed layers and layers that see everything
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 20e6
    assert (FOLDER / "model.safetensors").exists()
    assert not list(FOLDER.glob("*.bin"))
