"""Small models on which pruning on a device is held against pruning on a CPU: the embedded ones, and random ones."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

import pruning
from experiments.asking import models
from experiments.asking.inputs import build_inputs
from experiments.gpu import methods
from experiments.gpu.shapes import SHAPES, moved
from experiments.testbed.questions import attribute, existence
from experiments.testbed.scenes import Scene, render, sample_scene
from pruning.choosing.base import Method
from pruning.choosing.budget import InfeasibleBudget
from pruning.glimpse import checkpoint
from pruning.models.families import family_of

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ("scenes-llava", "scenes-qwen")


@dataclass
class Subject:
    """A model on the CPU in float32, prompts for it, and methods in settings that fit.

    Attributes:
        inputs: two prompts of the same length without padding, for kernels that take no mask.
        padded: two prompts, one of them padded; None where there are none.
        glimpse: makes GlimpsePrune for a copy of the model.
    """

    name: str
    model: PreTrainedModel
    inputs: dict[str, Tensor]
    padded: dict[str, Tensor] | None
    keep: int
    glimpse: Callable[[PreTrainedModel], Method] | None

    @cached_property
    def exact(self) -> PreTrainedModel:
        """The model in eager attention, which can hide tokens."""
        return on_device(self.model, torch.device("cpu"), torch.float32, "eager")

    def prompts(self, padded: bool) -> dict[str, Tensor]:
        """The prompts, those with padding where asked for and there."""
        return self.padded if padded and self.padded is not None else self.inputs

    def methods(self, model: PreTrainedModel) -> dict[str, Method]:
        """By name, for a copy of the model; what has no setting there is left out."""
        placeholders = self.inputs["input_ids"][0] == model.config.image_token_id
        visual, layers = int(placeholders.sum()), len(family_of(model).layers)
        made: dict[str, Method] = {}
        for name in methods.NAMES:
            if name == "glimpse":
                if self.glimpse is not None:
                    made[name] = self.glimpse(model)
                continue
            for keep in (self.keep, visual // 2, 2 * visual // 3, 5 * visual // 6):
                try:
                    method = methods.method_at(name, keep, visual, layers, None)
                except InfeasibleBudget:
                    continue
                assert method is not None
                made[name] = method
                break
        return made


def on_device(model: PreTrainedModel, device: torch.device, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """A copy with its parameters in this dtype; buffers such as inverse frequencies stay as they are, as on loading."""
    own = copy.deepcopy(model).to(device)
    for parameter in own.parameters():
        parameter.data = parameter.data.to(dtype)
    own.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
    return own


def subject(name: str) -> Subject:
    """An embedded model, or the tiny random one of a shape."""
    return _embedded(name) if name in EMBEDDED else _random(name)


def _embedded(name: str) -> Subject:
    model, processor = models.load(name, device="cpu", attention="sdpa")
    first, second = _scenes(2)
    images = [render(first), render(second)]
    questions = [existence(first)[0].text, attribute(second)[0].text]
    inputs = dict(build_inputs(processor, images, [questions[0]] * 2))
    padded = dict(build_inputs(processor, images, questions))
    modules = checkpoint.load(ROOT / f"data/models/glimpse-{name}")

    def glimpse(own: PreTrainedModel) -> Method:
        return pruning.make("glimpse", modules=copy.deepcopy(modules).to(own.dtype))

    keep = int((inputs["input_ids"][0] == model.config.image_token_id).sum()) // 4
    return Subject(name, model, inputs, padded, keep, glimpse)


def _scenes(count: int) -> list[Scene]:
    rng, found = np.random.default_rng(0), list[Scene]()
    while len(found) < count:
        scene = sample_scene(rng)
        if existence(scene) and attribute(scene):
            found.append(scene)
    return found


def _random(name: str) -> Subject:
    shape = SHAPES[name](True)
    cpu = torch.device("cpu")
    model = shape.build(cpu, torch.float32)
    modules = shape.modules(model)
    made: Any = None
    if modules is not None:

        def made(own: PreTrainedModel) -> Method:
            return pruning.make("glimpse", modules=copy.deepcopy(modules).to(own.dtype), fixed_remain_ratio=0.5)

    return Subject(f"tiny {name}", model, shape.inputs(cpu, torch.float32), None, shape.keeps[0], made)


def given(inputs: dict[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """The inputs where the model is, in its dtype."""
    return moved(inputs, model.device, model.dtype)
