"""The testbed: scenes, questions and their evidence, packing, training that resumes, and the shipped model."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AttentionInterface

from experiments import answers, benchmarks, models, scenes
from experiments.testbed import packing
from experiments.testbed.architecture import build_model
from experiments.testbed.descriptions import describe
from experiments.testbed.loop import Schedule, run_phase
from experiments.testbed.phases import Words, pixels_of, pointing_loss
from experiments.testbed.questions import TYPES, caption
from experiments.testbed.scenes import CANVAS, Item, Scene, render, sample_scene
from experiments.testbed.vocabulary import GRID, PATCH, WORD_ID, build_processor

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def scene() -> Scene:
    """A red circle left of a blue circle, a red square below both, a green dot."""
    return Scene(
        (
            Item("circle", "red", "large", "k", 20, 20, 30),
            Item("circle", "blue", "large", "4", 70, 22, 30),
            Item("square", "red", "small", "", 40, 70, 20),
        ),
        Item("dot", "green", "tiny", "", 85, 85, 9),
        texture_seed=3,
    )


def asked(scene: Scene) -> dict[str, str]:
    return {question.text: question.answer for ask in TYPES.values() for question in ask(scene)}


def test_answers_follow_from_the_scene(scene: Scene) -> None:
    answers_of = asked(scene)
    assert answers_of["is there a red circle ?"] == "yes"
    assert answers_of["is there a blue square ?"] == "no"
    assert answers_of["what color is the square ?"] == "red"
    assert answers_of["what shape is the blue object ?"] == "circle"
    assert answers_of["is the red circle left or right of the blue circle ?"] == "left"
    assert answers_of["is the red square above or below the blue circle ?"] == "below"
    assert answers_of["how many circles are there ?"] == "2"
    assert answers_of["how many red objects are there ?"] == "2"
    assert answers_of["what character is on the blue circle ?"] == "4"
    assert answers_of["what color is the dot ?"] == "green"
    assert caption(scene).answer == (
        "a large red circle with k , a small red square , a large blue circle with 4 , a green dot"
    )


def test_ambiguous_questions_are_not_asked(scene: Scene) -> None:
    answers_of = asked(scene)
    assert "what color is the circle ?" not in answers_of
    assert "what shape is the red object ?" not in answers_of
    assert "is the red circle above or below the blue circle ?" not in answers_of  # two pixels apart


def test_evidence_is_where_the_answer_lies(scene: Scene) -> None:
    by_text = {question.text: question for ask in TYPES.values() for question in ask(scene)}
    assert by_text["what color is the dot ?"].boxes == (
        pytest.approx((80.5 / 96, 80.5 / 96, 89.5 / 96, 89.5 / 96), abs=1e-4),
    )
    assert len(by_text["how many circles are there ?"].boxes) == 2
    assert len(by_text["is there a blue square ?"].boxes) == 2  # what shares its shape or its colour


def test_a_scene_is_drawn_from_its_seed_alone() -> None:
    first, second = (sample_scene(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert render(first).tobytes() == render(second).tobytes()
    assert render(first).size == (CANVAS, CANVAS)


def test_the_evaluation_file_is_what_the_seed_gives() -> None:
    """A few of the committed rows, drawn again."""
    committed = benchmarks.load("scenes").select(range(12))
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
    for kind in ("existence", "counting", "relation", "reading", "small_object"):
        of_kind = [count for (name, _), count in counts.items() if name == kind]
        assert max(of_kind) < 1.6 * min(of_kind), (kind, of_kind)


def test_patches_are_described_by_the_object_over_them(scene: Scene) -> None:
    words = describe(scene).words.reshape(GRID, GRID, 4)
    red_circle = [WORD_ID[word] for word in ("circle", "red", "large", "k")]
    assert words[20 // PATCH, 20 // PATCH].tolist() == red_circle
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
    layout = packing.Layout(questions=5, sentences=2)
    packed = packing.pack([scene], layout, np.random.default_rng(0))
    visual = torch.randn(1, 30, model.config.text_config.hidden_size)
    language_model = model.model.language_model
    head = language_model.embed_tokens(torch.tensor([packing.PROMPT_HEAD]))
    tokens = language_model.embed_tokens(packed.tokens)
    short, long = packing.QUESTION_TOKENS, packing.SENTENCE_TOKENS
    spans = [slice(start, start + short) for start in range(0, 5 * short, short)]
    spans += [slice(5 * short + start, 5 * short + start + long) for start in (0, long)]
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


def test_pointing_reads_the_attention_in_front_of_the_answer(scene: Scene) -> None:
    """In a packed sequence the same attention over the visual tokens as when the question is asked alone."""
    AttentionInterface.register("packed_questions", packing.packed_attention)
    model = build_model(0).eval()
    layout = packing.Layout(questions=3)
    packed = packing.pack([scene], layout, np.random.default_rng(0))
    length = packing.QUESTION_TOKENS
    blocks = packed.labels[:, : 3 * length].unflatten(1, (3, length))
    asked = packed.tokens[:, : 3 * length].unflatten(1, (3, length))
    places = (asked == WORD_ID["ASSISTANT:"]).int().argmax(2)
    assert (blocks.gather(2, places[..., None]) != packing.IGNORED).all(), "the answer follows"
    pointing = packing.Pointing((2,), places)
    language_model = model.model.language_model
    visual = torch.randn(1, 30, model.config.text_config.hidden_size)
    prefix = torch.cat([language_model.embed_tokens(torch.tensor([packing.PROMPT_HEAD])), visual], 1)
    positions = torch.cat([torch.arange(32), 32 + layout.offsets])[None]
    with torch.no_grad():
        language_model.set_attn_implementation("packed_questions")
        inputs = torch.cat([prefix, language_model.embed_tokens(packed.tokens)], 1)
        language_model(inputs_embeds=inputs, position_ids=positions, layout=layout, pointing=pointing)
        language_model.set_attn_implementation("eager")
        for question in range(3):
            alone = torch.cat([prefix, language_model.embed_tokens(asked[:, question])], 1)
            row = language_model(inputs_embeds=alone, output_attentions=True).attentions[2][
                0, 0, 32 + places[0, question]
            ]
            shares = row[2:32] / row[2:32].sum()
            torch.testing.assert_close(pointing.logits[0][0, question].softmax(-1), shares, atol=1e-5, rtol=1e-4)


def test_pointing_is_right_where_the_strongest_token_is_evidence() -> None:
    evidence = torch.tensor([[[True, True, False, False], [False, False, False, True], [False] * 4]])
    logits = torch.tensor([[[3.0, 3.0, -90.0, -90.0], [0.0, 5.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]]])[None]
    loss, right = pointing_loss(logits, evidence)
    wrong = np.log(3 + np.exp(5))
    assert right == 0.5, "a question whose evidence has left is not counted"
    assert loss.item() == pytest.approx((np.log(2) + wrong) / 2, rel=1e-4)


def test_training_resumes_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 2 + 2 steps sees the batches of a run of 4 and does not start over."""
    AttentionInterface.register("packed_questions", packing.packed_attention)
    monkeypatch.setattr("experiments.testbed.loop.CHECKPOINT_EVERY", 2)
    monkeypatch.setattr("experiments.testbed.loop.LOG_EVERY", 1)

    def phase() -> Words:
        model = build_model(0)
        model.model.language_model.set_attn_implementation("packed_questions")
        return Words(model, batch_size=2, layout=packing.Layout(2), kept=8, noise=0.0)

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


@pytest.fixture(scope="module")
def shipped() -> tuple[object, object]:
    return models.load("scenes-llava")


def test_the_shipped_model_answers_the_testbed(shipped: tuple[object, object]) -> None:
    """The accuracy that README claims, on a subset: at least .90 overall and .80 in every type."""
    import pruning

    model, processor = shipped
    questions = benchmarks.load("scenes", 180)
    batches = list(answers.make_batches(processor, model.config, questions, 30))
    right: Counter[str] = Counter()
    for batch in batches:
        texts, _ = answers.answer(model, processor, pruning.make("full"), batch.inputs, max_new_tokens=4)
        for text, question in zip(texts, batch.questions, strict=True):
            right[question["type"]] += answers.matches(text, question["answer"])
    assert all(right[kind] / 30 >= 0.8 for kind in TYPES), right
    assert sum(right.values()) / 180 >= 0.9


def test_the_shipped_model_is_small_and_complete() -> None:
    folder = REPOSITORY / "data/models/scenes-llava"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20e6
    assert (folder / "model.safetensors").exists()
    assert not list(folder.glob("*.bin"))
