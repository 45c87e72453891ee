"""What a free-form text claims of a scene, as facts that can be checked: the deterministic score of such texts."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from experiments.testbed.scenes import CHARACTERS, COLOURS, DOT, SHAPES, SIZES

Fact = tuple[str, ...]


class FactScore(NamedTuple):
    """Shares in 0..1; `precision` is 0 where nothing was claimed."""

    precision: float
    recall: float
    f1: float


def facts(text: str) -> frozenset[Fact]:
    """The facts that a caption states, whatever their order and however often.

    A phrase (between commas) that names a colour and a shape states that there is such an object; its size and its
    character, where named, are facts of their own about it. Anything else states nothing.
    """
    return frozenset(fact for phrase in re.split(r"[,.]", text.lower()) for fact in _shown(phrase.split()))


def _shown(words: list[str]) -> Iterator[Fact]:
    """The facts of a noun phrase."""
    colour = next((word for word in words if word in COLOURS), None)
    shape = next((word for word in words if word in SHAPES or word == DOT), None)
    if colour is None or shape is None:
        return
    yield ("object", colour, shape)
    yield from (("size", colour, shape, word) for word in words if word in SIZES)
    carried = words[words.index("with") + 1 :] if "with" in words else []
    yield from (("character", colour, shape, word) for word in carried if word in CHARACTERS)


def objects_named(text: str) -> frozenset[tuple[str, str]]:
    """The (colour, shape) of every object that a text says is there; "no red circle" says none is."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(
        (colour, shape)
        for before, colour, shape in zip(["", *words], words, words[1:], strict=False)
        if colour in COLOURS and (shape in SHAPES or shape == DOT) and before != "no"
    )


def score_facts(prediction: str, reference: str) -> FactScore:
    """Precision, recall and F1 of a text's facts against those of the reference.

    Raises:
        ValueError: the reference states no fact, so there is nothing to be right about.
    """
    claimed, true = facts(prediction), facts(reference)
    if not true:
        raise ValueError(f"the reference states no fact: {reference!r}")
    right = len(claimed & true)
    precision = right / len(claimed) if claimed else 0.0
    return FactScore(precision, right / len(true), 2 * right / (len(claimed) + len(true)))
