"""The families of models that are supported: one file of facts each, and one line here."""

from typing import Any

from pruning.models.family import Family
from pruning.models.llava import Llava
from pruning.models.llava_next import LlavaNext
from pruning.models.qwen_vl import Qwen2VL, Qwen25VL

FAMILIES: tuple[type[Family], ...] = (Llava, LlavaNext, Qwen2VL, Qwen25VL)


def family_of(model: Any) -> Family:
    """The parts of a supported model.

    Raises:
        TypeError: the model's class is not supported; the message names those that are.
    """
    for family in FAMILIES:
        if isinstance(model, family.model_class):
            return family(model)
    supported = ", ".join(family.model_class.__name__ for family in FAMILIES)
    raise TypeError(f"{type(model).__name__} is not supported. Supported models: {supported}")


def family_of_config(config: Any) -> type[Family]:
    """The family that the configuration of an entire model (`model.config`) belongs to.

    Raises:
        TypeError: to none.
    """
    for family in FAMILIES:
        if config.model_type == family.model_type:
            return family
    supported = ", ".join(family.model_type for family in FAMILIES)
    raise TypeError(f"models of type {config.model_type!r} are not supported. Supported: {supported}")
