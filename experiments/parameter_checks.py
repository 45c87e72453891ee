"""What params.yaml's sections check in common: names that are known, and lists without repetition."""

import difflib
from typing import Any


def one_of(kind: str, name: str, known: Any) -> str:
    """The name itself; ValueError with the nearest known one where it is unknown."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}.{suggestion(name, known)} Known: {', '.join(known)}.")
    return name


def no_repeats(values: list[Any]) -> list[Any]:
    """The values themselves; ValueError where one occurs twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"{values} lists a value twice")
    return values


def suggestion(name: str, known: Any) -> str:
    """A sentence that names the known name nearest to this one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
