"""The testbed's questions answered in full sentences."""

from dataclasses import replace

from experiments.testbed.questions import Question
from experiments.testbed.scenes import PLURALS

REQUEST = "describe ."
SINGULARS = {**{plural: shape for shape, plural in PLURALS.items()}, "objects": "object"}


def in_full(question: Question) -> Question:
    """The same question with REQUEST behind it, and its answer as a sentence; of the type `sentence`."""
    text, answer = f"{question.text} {REQUEST}", _SENTENCES[question.type](question)
    return replace(question, type="sentence", text=text, answer=answer)


def _existence(question: Question) -> str:
    # is there a cyan square ?
    article = "a" if question.answer == "yes" else "no"
    return f"there is {article} {_words(question, 3)} in the picture ."


def _attribute(question: Question) -> str:
    # what color is the star ? what shape is the red object ?
    article = "" if question.text.startswith("what color") else "a "
    return f"the {_words(question, 4)} is {article}{question.answer} ."


def _relation(question: Question) -> str:
    # is the red circle left or right of the blue square ? is the red circle above or below the blue square ?
    words = question.text.split()
    one, other = " ".join(words[2:4]), " ".join(words[-3:-1])
    side = f"{question.answer} of" if question.answer in ("left", "right") else question.answer
    return f"the {one} is {side} the {other} ."


def _counting(question: Question) -> str:
    # how many circles are there ? how many red objects are there ?
    words = question.text.split()[2:-3]
    if question.answer != "1":
        return f"there are {question.answer} {' '.join(words)} in the picture ."
    return f"there is 1 {' '.join([*words[:-1], SINGULARS[words[-1]]])} in the picture ."


def _reading(question: Question) -> str:
    # what character is on the red cross ?
    return f"the character on the {_words(question, 5)} is {question.answer} ."


def _where(question: Question) -> str:
    # where is the red circle ?
    return f"the {_words(question, 3)} is in the {question.answer} ."


def _link(question: Question) -> str:
    return _reading(question) if question.text.startswith("what character") else _attribute(question)


def _words(question: Question, start: int) -> str:
    """What the question is about: its words from a place on, without the question mark."""
    return " ".join(question.text.split()[start:-1])


_SENTENCES = {
    "existence": _existence,
    "attribute": _attribute,
    "relation": _relation,
    "counting": _counting,
    "reading": _reading,
    "carrier": _attribute,
    "small_object": _attribute,
    "where": _where,
    "link": _link,
    "locate": _where,
    "chain": _attribute,
    "relay": _attribute,
}
