"""The testbed: scenes, questions and their evidence, packing, training that resumes, and the shipped model."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AttentionInterface

from experiments import scenes
from experiments.asking import answers, benchmarks, models
from experiments.testbed import packing
from experiments.testbed.architecture import DECODER_LAYERS, GROWTH, build_model, grow
from experiments.testbed.descriptions import describe
from experiments.testbed.loop import Schedule, run_phase
from experiments.testbed.muon import BatchedMuon
from experiments.testbed.phases import STEPS, Words, pixels_of
from experiments.testbed.questions import SEVERAL_LOOKS, TRAINED, TYPES, caption
from experiments.testbed.scenes import CANVAS, Item, Scene, render, sample_scene
from experiments.testbed.vocabulary import GRID, PATCH, WORD_ID, build_processor

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def scene() -> Scene:
    """A red circle left of a blue circle, a red square below both, a blue dot."""
    return Scene(
        (
            Item("circle", "red", "large", "k", 20, 20, 30),
            Item("circle", "blue", "large", "4", 70, 22, 30),
            Item("square", "red", "small", "", 40, 70, 20),
        ),
        Item("dot", "blue", "tiny", "", 85, 85, 9),
        texture_seed=3,
    )


def asked(scene: Scene) -> dict[str, str]:
    return {question.text: question.answer for ask in TYPES.values() for question in ask(scene)}


def test_answers_follow_from_the_scene(scene: Scene) -> None:
    answers_of = asked(scene)
    assert answers_of["is there a red circle ?"] == "yes"
    assert answers_of["is there a blue square ?"] == "no"
    assert answers_of["what color is the square ?"] == "red"
    assert answers_of["where is the blue circle ?"] == "top right"
    assert answers_of["what shape is the object with the color of the dot ?"] == "circle"
    assert answers_of["what character is on the object with the color of the dot ?"] == "4"
    assert answers_of["where is the object with the color of the dot ?"] == "top right"
    assert answers_of["what color is the object with the shape of the object with k ?"] == "blue"
    assert answers_of["what color is the object with the shape of the object with the color of the dot ?"] == "red"
    assert answers_of["is the red circle left or right of the blue circle ?"] == "left"
    assert answers_of["is the red square above or below the blue circle ?"] == "below"
    assert answers_of["how many circles are there ?"] == "2"
    assert answers_of["how many red objects are there ?"] == "2"
    assert answers_of["what character is on the blue circle ?"] == "4"
    assert answers_of["what color is the dot ?"] == "blue"
    assert caption(scene).answer == (
        "a large red circle with k , a small red square , a large blue circle with 4 , a blue dot"
    )


def test_what_is_only_trained_follows_from_the_scene_and_is_not_in_the_benchmark(scene: Scene) -> None:
    practised = {name: ask for name, ask in TRAINED.items() if name not in TYPES}
    answers_of = {question.text: question.answer for ask in practised.values() for question in ask(scene)}
    assert answers_of == {
        "where is the object with the shape of the object with k ?": "top right",
        "where is the object with the shape of the object with 4 ?": "top left",
        "what character is on the object with the shape of the object with k ?": "4",
        "what character is on the object with the shape of the object with 4 ?": "k",
        "where is the object with the shape of the object with the color of the dot ?": "top left",
        "what color is the circle with no k ?": "blue",
        "where is the circle with no k ?": "top right",
        "what color is the circle with no 4 ?": "red",
        "where is the circle with no 4 ?": "top left",
        "how many objects with the shape of the object with k are there ?": "2",
        "how many objects with the shape of the object with 4 are there ?": "2",
        "is there a blue object with the shape of the object with k ?": "yes",
        "is there a red object with the shape of the object with 4 ?": "yes",
    }
    assert not set(benchmarks.load("scenes")["type"]) & practised.keys()


def test_ambiguous_questions_are_not_asked(scene: Scene) -> None:
    answers_of = asked(scene)
    assert "what color is the circle ?" not in answers_of
    assert "what shape is the red object ?" not in answers_of
    assert "what shape is the blue object ?" not in answers_of  # the dot is blue too
    assert "where is the red square ?" in answers_of
    third = replace(scene.items[1], colour="green", x=64.5, y=60)
    more = replace(scene, items=(*scene.items, third))
    assert "where is the green circle ?" not in asked(more)  # half a pixel from the next cell
    assert not any(text.startswith("what color is the object with the shape") for text in asked(more)), "two others"
    two_blue = replace(scene, items=(*scene.items, replace(scene.items[2], colour="blue", y=40)))
    assert not any("color of the dot" in text for text in asked(two_blue))
    assert "is the red circle above or below the blue circle ?" not in answers_of  # two pixels apart


def test_evidence_is_where_the_answer_lies(scene: Scene) -> None:
    by_text = {question.text: question for ask in TYPES.values() for question in ask(scene)}
    assert by_text["what color is the dot ?"].boxes == (
        pytest.approx((80.5 / 96, 80.5 / 96, 89.5 / 96, 89.5 / 96), abs=1e-4),
    )
    assert len(by_text["how many circles are there ?"].boxes) == 2
    assert len(by_text["is there a blue square ?"].boxes) == 2  # what shares its shape or its colour
    relay = by_text["what color is the object with the shape of the object with the color of the dot ?"]
    blue, red = scene.items[1], scene.items[0]
    assert [list(box) for box in relay.boxes] == [item.relative_box for item in (scene.dot, blue, red)]


def test_a_scene_is_drawn_from_its_seed_alone() -> None:
    first, second = (sample_scene(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert render(first).tobytes() == render(second).tobytes()
    assert render(first).size == (CANVAS, CANVAS)


def test_the_evaluation_file_is_what_the_seed_gives() -> None:
    """A few of the committed rows, drawn again."""
    committed = benchmarks.load("scenes").select(range(24))
    again = scenes.draw("evaluation", 2, seed=0).filter(lambda row: row["type"] not in benchmarks.FREE_FORM)
    for old, new in zip(committed, again, strict=True):
        assert {key: old[key] for key in ("id", "question", "answer")} == {
            key: new[key] for key in ("id", "question", "answer")
        }
        assert old["image"].tobytes() == new["image"].tobytes()


def test_the_evaluation_file_is_balanced() -> None:
    questions = benchmarks.load("scenes")
    assert len(questions) >= 1500
    assert len(set(Counter(questions["type"]).values())) == 1
    counts = Counter(zip(questions["type"], questions["answer"], strict=True))
    assert len([kind for kind in questions["type"] if kind in SEVERAL_LOOKS]) >= len(questions) / 3
    for kind in ("existence", "counting", "relation", "reading", "small_object", "where"):
        of_kind = [count for (name, _), count in counts.items() if name == kind]
        assert max(of_kind) < 1.6 * min(of_kind), (kind, of_kind)
    # A scene has at most one question of these.
    for kind, answers_possible in (("locate", 9), ("relay", 6)):
        of_kind = [count for (name, _), count in counts.items() if name == kind]
        assert max(of_kind) / sum(of_kind) < 1 / answers_possible + 0.05, (kind, of_kind)


def test_patches_are_described_by_the_object_over_them(scene: Scene) -> None:
    words = describe(scene).words.reshape(GRID, GRID, 4)
    red_circle = [WORD_ID[word] for word in ("circle", "red", "large", "k")]
    assert words[20 // PATCH, 20 // PATCH].tolist() == red_circle
    assert words[1, 1].tolist() == red_circle, "also where none of the character is drawn"
    assert words[85 // PATCH, 85 // PATCH, 0] == WORD_ID["dot"]
    assert words[11, 0, 0] == WORD_ID["background"]
    assert describe(scene).centre.sum() == 4


def test_pixels_are_those_of_the_processor(scene: Scene) -> None:
    by_processor = build_processor().image_processor(render(scene), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels_of([scene]), by_processor)


def test_a_packed_question_is_answered_as_if_asked_alone(scene: Scene) -> None:
    """The same logits for the answer, whatever else is in the sequence."""
    AttentionInterface.register("packed_questions", packing.packed_attention)
    model = build_model(0).eval()
    layout = STEPS
    packed = packing.pack([scene], layout, np.random.default_rng(0))
    visual = torch.randn(1, 30, model.config.text_config.hidden_size)
    language_model = model.model.language_model
    head = language_model.embed_tokens(torch.tensor([packing.PROMPT_HEAD]))
    tokens = language_model.embed_tokens(packed.tokens)
    lengths = [length for number, length in layout.spans for _ in range(number)]
    starts = np.cumsum([0, *lengths]).tolist()
    spans = [slice(start, start + length) for start, length in zip(starts, lengths, strict=False)]
    positions = torch.cat([torch.arange(32), 32 + layout.offsets])[None]
    with torch.no_grad():
        alone = [
            language_model(inputs_embeds=torch.cat([head, visual, tokens[:, span]], 1)).last_hidden_state
            for span in spans
        ]
        language_model.set_attn_implementation("packed_questions")
        inputs = torch.cat([head, visual, tokens], 1)
        together = language_model(inputs_embeds=inputs, position_ids=positions, layout=layout).last_hidden_state
    behind = together[:, 32:]
    for span, hidden in zip(spans, alone, strict=True):
        torch.testing.assert_close(behind[:, span], hidden[:, 32:], atol=1e-4, rtol=1e-4)


def test_every_question_fits_its_blocks_and_scenes_can_be_asked_what_they_are_drawn_for() -> None:
    rng = np.random.default_rng(0)
    scenes = packing.draw_scenes(60, rng, SEVERAL_LOOKS)
    types = packing.pack(scenes, STEPS, rng).types
    assert set(types.unique().tolist()) == {packing.NOT_ASKED, *range(len(TRAINED))}
    assert all(any(TYPES[name](scene) for name in SEVERAL_LOOKS) for scene in scenes)


def test_growing_changes_no_output() -> None:
    """Four times the layers, the same logits to the bit; and the new layers can learn."""
    model = build_model(0).eval()
    tokens = torch.arange(7, 27)[None]
    with torch.no_grad():
        before = model.model.language_model(tokens).last_hidden_state
        for in_front, behind in GROWTH:
            grow(model, in_front, behind)
        after = model.model.language_model(tokens).last_hidden_state
    assert torch.equal(before, after)
    layers = model.model.language_model.layers
    assert len(layers) == DECODER_LAYERS == model.config.text_config.num_hidden_layers
    assert [layer.self_attn.layer_idx for layer in layers] == list(range(DECODER_LAYERS))
    model.model.language_model(tokens).last_hidden_state.sum().backward()
    for layer in layers:
        assert layer.self_attn.o_proj.weight.grad.abs().sum() > 0


def test_batched_muon_takes_the_steps_of_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    one, other = ([torch.ones(shape, requires_grad=True) for shape in shapes] for _ in range(2))
    stock = torch.optim.Muon(one, lr=0.02, weight_decay=0.01)
    batched = BatchedMuon(other, lr=0.02, weight_decay=0.01)
    for _ in range(3):
        for a, b in zip(one, other, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        stock.step()
        batched.step()
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


def test_training_resumes_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 2 + 2 steps sees the batches of a run of 4 and does not start over."""
    AttentionInterface.register("packed_questions", packing.packed_attention)
    monkeypatch.setattr("experiments.testbed.loop.CHECKPOINT_EVERY", 2)
    monkeypatch.setattr("experiments.testbed.loop.LOG_EVERY", 1)

    def phase() -> Words:
        model = build_model(0)
        model.model.language_model.set_attn_implementation("packed_questions")
        return Words(
            model, "words", packing.Layout((packing.Blocks(2, 10, {"counting": 1}),)), ("counting",), batch_size=2
        )

    stopped = phase()
    steps_run: list[int] = []
    draw = stopped.draw

    def stopping_draw(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        steps_run.append(1)
        if len(steps_run) > 3:
            raise KeyboardInterrupt
        return draw(rng)

    schedule = Schedule(4, rate=1e-3, matrix_rate=0.01, warm_up=1)
    stopped.draw = stopping_draw  # type: ignore[method-assign]
    with pytest.raises(BaseException):  # noqa: B017 - what a worker process makes of the interruption
        run_phase(stopped, schedule, 0, torch.device("cpu"), tmp_path, workers=0, compiled=False)
    log = run_phase(phase(), schedule, 0, torch.device("cpu"), tmp_path, workers=0, compiled=False)
    assert log.step.tolist() == [1, 2, 3, 4]
    finished = phase()
    again = run_phase(finished, schedule, 0, torch.device("cpu"), tmp_path, workers=0, compiled=False)
    assert again.equals(log), "a finished phase is taken from its checkpoint"
    drawn = build_model(0).model.language_model.layers[0].mlp.up_proj.weight
    assert not torch.equal(finished.model.model.language_model.layers[0].mlp.up_proj.weight, drawn)


@pytest.fixture(scope="module")
def shipped() -> tuple[object, object]:
    return models.load("scenes-llava")


def test_the_shipped_model_answers_the_testbed(shipped: tuple[object, object]) -> None:
    """The accuracy that docs/testbed.md claims, on a subset: .90 over all, .80 in every type but `relay`."""
    import pruning

    model, processor = shipped
    questions = benchmarks.load("scenes", 330)
    batches = list(answers.make_batches(processor, model.config, questions, 30))
    right: Counter[str] = Counter()
    for batch in batches:
        texts, _ = answers.answer(model, processor, pruning.make("full"), batch.inputs, max_new_tokens=4)
        for text, question in zip(texts, batch.questions, strict=True):
            right[question["type"]] += answers.matches(text, question["answer"])
    asked_of = Counter(questions["type"])
    assert all(right[kind] / asked_of[kind] >= (0.5 if kind == "relay" else 0.8) for kind in TYPES), right
    assert sum(right.values()) / 330 >= 0.9


def test_the_shipped_model_is_small_and_complete() -> None:
    folder = REPOSITORY / "data/models/scenes-llava"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20e6
    assert (folder / "model.safetensors").exists()
    assert not list(folder.glob("*.bin"))
