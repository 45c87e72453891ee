"""Questions about a scene, each with one short answer and the evidence boxes it rests on.

The types with one look stand for the field's benchmarks: existence with adversarial negatives (POPE), attribute (GQA),
relation, counting, reading characters and finding objects by them (TextVQA), small object (V*) and where (grounding,
RefCOCO, as one of nine cells). The others take several looks: what to look for next is what the look before found.
Captions are free-form text beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from experiments.testbed.scenes import CANVAS, COLOURS, PLURALS, Item, Scene

RELATION_MARGIN = CANVAS / 6  # pixels between two centres on the asked axis: no borderline cases
CELL_MARGIN = 2  # pixels between a centre and the border of its cell, likewise
MOST_COUNTED = 3
OF_THE_DOT = "object with the color of the dot"


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


def carrier(scene: Scene) -> list[Question]:
    """Colour and shape of the object that carries a character."""
    found = []
    for item in scene.items:
        if item.character:
            for asked, answer in (("color", item.colour), ("shape", item.shape)):
                text = f"what {asked} is the object with {item.character} ?"
                found.append(Question("carrier", text, answer, _boxes([item])))
    return found


def small_object(scene: Scene) -> list[Question]:
    """Colour of the tiny dot."""
    return [Question("small_object", "what color is the dot ?", scene.dot.colour, _boxes([scene.dot]))]


def cell(item: Item) -> str:
    """In which of nine equal cells of the picture the centre of an object lies."""
    rows, columns = ("top", "middle", "bottom"), ("left", "center", "right")
    return f"{rows[int(item.y * 3 / CANVAS)]} {columns[int(item.x * 3 / CANVAS)]}"


def where(scene: Scene) -> list[Question]:
    """The cell of an object."""
    clear = [item for item in scene.items if _clearly_placed(item)]
    return [Question("where", f"where is the {_named(o)} ?", cell(o), _boxes([o])) for o in clear]


def link(scene: Scene) -> list[Question]:
    """Shape of, and character on, the only object with the dot's colour: two looks."""
    found = []
    for item in _alike(scene.dot, "colour", scene):
        boxes = _boxes([scene.dot, item])
        found.append(Question("link", f"what shape is the {OF_THE_DOT} ?", item.shape, boxes))
        if item.character:
            found.append(Question("link", f"what character is on the {OF_THE_DOT} ?", item.character, boxes))
    return found


def locate(scene: Scene) -> list[Question]:
    """The cell of the only object with the dot's colour: two looks."""
    found = [item for item in _alike(scene.dot, "colour", scene) if _clearly_placed(item)]
    return [Question("locate", f"where is the {OF_THE_DOT} ?", cell(o), _boxes([scene.dot, o])) for o in found]


def chain(scene: Scene) -> list[Question]:
    """Colour of the only other object with the shape of the one that carries a character: two looks, not at itself."""
    found = []
    for carrier in scene.items:
        for other in _alike(carrier, "shape", scene) if carrier.character else []:
            text = f"what color is the object with the shape of the object with {carrier.character} ?"
            found.append(Question("chain", text, other.colour, _boxes([carrier, other])))
    return found


def relay(scene: Scene) -> list[Question]:
    """Colour of the only other object with the shape of the only object with the dot's colour: three looks."""
    text = f"what color is the object with the shape of the {OF_THE_DOT} ?"
    return [
        Question("relay", text, other.colour, _boxes([scene.dot, item, other]))
        for item in _alike(scene.dot, "colour", scene)
        for other in _alike(item, "shape", scene)
    ]


def follow(scene: Scene) -> list[Question]:
    """The cell of the object whose colour `chain` or `relay` ask, and of `chain`'s its character; only in training."""
    dot = [([scene.dot, item], item, OF_THE_DOT) for item in _alike(scene.dot, "colour", scene)]
    carried = [([item], item, f"object with {item.character}") for item in scene.items if item.character]
    found = []
    for seen, item, named in [*dot, *carried]:
        for other in _alike(item, "shape", scene):
            boxes = _boxes([*seen, other])
            if _clearly_placed(other):
                found.append(
                    Question("follow", f"where is the object with the shape of the {named} ?", cell(other), boxes)
                )
            if other.character and named != OF_THE_DOT:
                text = f"what character is on the object with the shape of the {named} ?"
                found.append(Question("follow", text, other.character, boxes))
    return found


def without(scene: Scene) -> list[Question]:
    """Colour and cell of the other of two objects of a shape, one of which carries a character; only in training."""
    found = []
    for carrier in scene.items:
        for other in _alike(carrier, "shape", scene) if carrier.character else []:
            named, boxes = f"{other.shape} with no {carrier.character}", _boxes([carrier, other])
            found.append(Question("without", f"what color is the {named} ?", other.colour, boxes))
            if _clearly_placed(other):
                found.append(Question("without", f"where is the {named} ?", cell(other), boxes))
    return found


def gather(scene: Scene) -> list[Question]:
    """How many objects have the shape of the one that carries a character, of which colours; only in training."""
    found = []
    for carrier in scene.items:
        if carrier.character:
            named = f"with the shape of the object with {carrier.character}"
            same = [item for item in scene.items if item.shape == carrier.shape]
            if len(same) <= MOST_COUNTED:
                found.append(Question("gather", f"how many objects {named} are there ?", str(len(same)), _boxes(same)))
            for colour in sorted({item.colour for item in scene.items} - {carrier.colour}):
                match = [item for item in same if item.colour == colour]
                answer = "yes" if match else "no"
                boxes = _boxes([carrier, *(match or same)])
                found.append(Question("gather", f"is there a {colour} object {named} ?", answer, boxes))
    return found


def _alike(one: Item, by: str, scene: Scene) -> list[Item]:
    """The object, other than `one`, with the same `by`, if there is exactly one; else none."""
    same = [item for item in scene.items if item is not one and getattr(item, by) == getattr(one, by)]
    return same if len(same) == 1 else []


def _clearly_placed(item: Item) -> bool:
    """Whether the centre is clear of the borders between cells."""
    return all(min(abs(at - CANVAS / 3), abs(at - CANVAS * 2 / 3)) >= CELL_MARGIN for at in (item.x, item.y))


TYPES: dict[str, Callable[[Scene], list[Question]]] = {
    "existence": existence,
    "attribute": attribute,
    "relation": relation,
    "counting": counting,
    "reading": reading,
    "carrier": carrier,
    "small_object": small_object,
    "where": where,
    "link": link,
    "locate": locate,
    "chain": chain,
    "relay": relay,
}
# What is asked in training: those of the benchmark, and more about what the longest of them look for.
TRAINED: dict[str, Callable[[Scene], list[Question]]] = TYPES | {"follow": follow, "without": without, "gather": gather}
SEVERAL_LOOKS = ("link", "locate", "chain", "relay")
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
