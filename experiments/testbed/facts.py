"""What a caption of a scene claims, as facts that can be checked: the deterministic score of free-form answers."""

from typing import NamedTuple

from experiments.testbed.scenes import CHARACTERS, COLOURS, DOT, SHAPES, SIZES

Fact = tuple[str, ...]


class FactScore(NamedTuple):
    """Shares in 0..1; `precision` is 0 where nothing was claimed."""

    precision: float
    recall: float
    f1: float


def facts(caption: str) -> frozenset[Fact]:
    """The facts a caption states, whatever their order and however often.

    A phrase (between commas) that names a colour and a shape states that there is such an object; its size and its
    character, where named, are facts of their own about it. A phrase without colour or shape states nothing.
    """
    stated: set[Fact] = set()
    for phrase in caption.lower().split(","):
        words = phrase.split()
        colour = next((word for word in words if word in COLOURS), None)
        shape = next((word for word in words if word in SHAPES or word == DOT), None)
        if colour is None or shape is None:
            continue
        stated.add(("object", colour, shape))
        stated |= {("size", colour, shape, word) for word in words if word in SIZES}
        carried = words[words.index("with") + 1 :] if "with" in words else []
        stated |= {("character", colour, shape, word) for word in carried if word in CHARACTERS}
    return frozenset(stated)


def score_facts(prediction: str, reference: str) -> FactScore:
    """Precision, recall and F1 of a caption's facts against those of the reference.

    Raises:
        ValueError: the reference states no fact, so there is nothing to be right about.
    """
    claimed, true = facts(prediction), facts(reference)
    if not true:
        raise ValueError(f"the reference states no fact: {reference!r}")
    right = len(claimed & true)
    precision = right / len(claimed) if claimed else 0.0
    return FactScore(precision, right / len(true), 2 * right / (len(claimed) + len(true)))
