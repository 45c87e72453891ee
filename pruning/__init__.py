"""Visual token pruning for large vision-language models: every method behind one engine, on unmodified models.

For users: `make` and `names`, `paper` for published settings, `solve` for a budget. For a method's author: what it
derives from (`BeforeLLM`, `KeepPerImage`, `InsideLLM`), what it sees (`Observed`, `ObservedLayer`) and what it gives.
"""

from pruning.choosing.base import BeforeLLM, InsideLLM, KeepPerImage, Method
from pruning.choosing.selection import stable_top_k
from pruning.engine.encoded import EncodedImages
from pruning.engine.record import Record
from pruning.engine.seen import Observed, ObservedLayer
from pruning.engine.tokens import Choice
from pruning.methods.sequence import Sequence
from pruning.models.sizes import Sizes
from pruning.paper_settings import paper
from pruning.registry import make, names, solve

__all__ = [
    "BeforeLLM",
    "Choice",
    "EncodedImages",
    "InsideLLM",
    "KeepPerImage",
    "Method",
    "Observed",
    "ObservedLayer",
    "Record",
    "Sequence",
    "Sizes",
    "make",
    "names",
    "paper",
    "solve",
    "stable_top_k",
]
