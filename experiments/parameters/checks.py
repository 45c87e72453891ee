"""What params.yaml's sections have in common: ranges, known names, lists without repetition."""

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


# How pydantic is told that the methods are not to be tried out.
NAMES_ONLY = "names only"


class Section(BaseModel):
    """The parameters of one stage; unknown keys and values of another type ("64" for 64) are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
