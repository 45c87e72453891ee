"""Visual token pruning for large vision-language models: every method behind one engine, on unmodified models."""

from pruning.base import BeforeLLM, InsideLLM, Method
from pruning.encoded import EncodedImages
from pruning.methods.sequence import Sequence
from pruning.presets import paper
from pruning.record import Record
from pruning.registry import make, names

__all__ = ["BeforeLLM", "EncodedImages", "InsideLLM", "Method", "Record", "Sequence", "make", "names", "paper"]
