"""The other half of CLIP, for CDPruner: `clip` among its parameters names the model whose vision tower is pruned.

cdpruner: {clip: openai/clip-vit-large-patch14-336}    # that of LLaVA-1.5 and LLaVA-NeXT; or a folder
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPModel

from experiments.named.presets import ModelError


def loaded(parameters: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A method's parameters with the CLIP model that `clip` names, if it names one: float32, safetensors only.

    Raises:
        ModelError: it cannot be loaded.
    """
    name = parameters.get("clip")
    if not isinstance(name, str):
        return dict(parameters)
    try:
        model = CLIPModel.from_pretrained(name, dtype=torch.float32, use_safetensors=True).eval()
        AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"clip: {name} could not be loaded: {cause} Give the hub's name or the folder of a CLIP model in "
            "safetensors with its tokenizer, or leave clip out for the fallback without CLIP."
        ) from error
    return {**parameters, "clip": model.to(device)}
