"""Questions about a scene, each with one short answer and the evidence boxes it rests on.

The types stand for the field's benchmarks: existence with adversarial negatives (POPE), attribute (GQA), relation,
counting, reading characters (TextVQA) and small object (V*). Captions are free-form text beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from experiments.testbed.scenes import CANVAS, COLOURS, PLURALS, Item, Scene

RELATION_MARGIN = CANVAS / 6  # pixels between two centres on the asked axis: no borderline cases
MOST_COUNTED = 3


@dataclass(frozen=True)
class Question:
    """`boxes` are [left, top, right, bottom] in 0..1."""

    type: str
    text: str
    answer: str
    boxes: tuple[tuple[float, ...], ...]


def _boxes(items: list[Item]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(item.relative_box) for item in items)


def _named(item: Item) -> str:
    return f"{item.colour} {item.shape}"


def existence(scene: Scene) -> list[Question]:
    """Present pairs, and absent pairs of present words; the evidence of "no" is what could mislead."""
    found = []
    present = {(item.shape, item.colour) for item in scene.items}
    for shape in sorted({item.shape for item in scene.items}):
        for colour in sorted({item.colour for item in scene.items}):
            yes = (shape, colour) in present
            match = [o for o in scene.items if (o.shape == shape and o.colour == colour)]
            near = [o for o in scene.items if (o.shape == shape or o.colour == colour)]
            text = f"is there a {colour} {shape} ?"
            found.append(Question("existence", text, "yes" if yes else "no", _boxes(match or near)))
    return found


def attribute(scene: Scene) -> list[Question]:
    """Colour of the only object of a shape; shape of the only object of a colour."""
    found = []
    for item in scene.items:
        if sum(o.shape == item.shape for o in scene.items) == 1:
            found.append(Question("attribute", f"what color is the {item.shape} ?", item.colour, _boxes([item])))
        if sum(o.colour == item.colour for o in (*scene.items, scene.dot)) == 1:
            found.append(Question("attribute", f"what shape is the {item.colour} object ?", item.shape, _boxes([item])))
    return found


def relation(scene: Scene) -> list[Question]:
    """On which side of another object is one, where their centres are clearly apart on that axis."""
    found = []
    for one, other in permutations(scene.items, 2):
        for low, high, distance in (("left", "right", one.x - other.x), ("above", "below", one.y - other.y)):
            if abs(distance) >= RELATION_MARGIN:
                sides = f"{low} or {high} of" if low == "left" else f"{low} or {high}"
                text = f"is the {_named(one)} {sides} the {_named(other)} ?"
                found.append(Question("relation", text, high if distance > 0 else low, _boxes([one, other])))
    return found


def counting(scene: Scene) -> list[Question]:
    """How many objects of a shape, or of a colour; from one to MOST_COUNTED."""
    found = []
    for words, pick in [(plural, ("shape", shape)) for shape, plural in PLURALS.items()] + [
        (f"{c} objects", ("colour", c)) for c in COLOURS
    ]:
        matching = [item for item in scene.items if getattr(item, pick[0]) == pick[1]]
        dot_confuses = pick == ("colour", scene.dot.colour)
        if 1 <= len(matching) <= MOST_COUNTED and not dot_confuses:
            found.append(Question("counting", f"how many {words} are there ?", str(len(matching)), _boxes(matching)))
    return found


def reading(scene: Scene) -> list[Question]:
    """Which character does an object carry; asked where at least two objects carry one."""
    carriers = [item for item in scene.items if item.character]
    if len(carriers) < 2:
        return []
    return [Question("reading", f"what character is on the {_named(o)} ?", o.character, _boxes([o])) for o in carriers]


def small_object(scene: Scene) -> list[Question]:
    """Colour of the tiny dot."""
    return [Question("small_object", "what color is the dot ?", scene.dot.colour, _boxes([scene.dot]))]


TYPES: dict[str, Callable[[Scene], list[Question]]] = {
    "existence": existence,
    "attribute": attribute,
    "relation": relation,
    "counting": counting,
    "reading": reading,
    "small_object": small_object,
}
CAPTION_REQUEST = "describe the image ."


def caption(scene: Scene) -> Question:
    """All objects from left to right, as free-form text."""
    ordered = sorted(scene.items, key=lambda item: item.x)
    phrases = [f"a {o.size} {_named(o)}" + (f" with {o.character}" if o.character else "") for o in ordered]
    text = " , ".join([*phrases, f"a {scene.dot.colour} dot"])
    return Question("caption", CAPTION_REQUEST, text, _boxes([*ordered, scene.dot]))


def balanced(questions: list[Question], rng: np.random.Generator) -> Question:
    """One of the questions: first an answer among those present, then a question with that answer."""
    answers = sorted({question.answer for question in questions})
    answer = answers[rng.integers(len(answers))]
    same = [question for question in questions if question.answer == answer]
    return same[rng.integers(len(same))]
