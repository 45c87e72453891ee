"""The other half of CLIP, for CDPruner: `clip` among its parameters names the model whose vision tower is pruned.

cdpruner: {clip: openai/clip-vit-large-patch14-336}    # that of LLaVA-1.5 and LLaVA-NeXT; or a folder
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from experiments.presets import ModelError


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
        _tokenizer(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"clip: {name} could not be loaded: {cause} Give the hub's name or the folder of a CLIP model in "
            "safetensors with its tokenizer, or leave clip out for the fallback without CLIP."
        ) from error
    return {**parameters, "clip": model.to(device)}


def segments(clip: CLIPModel, questions: Sequence[str]) -> list[Tensor]:
    """For every question its ids for CLIP's text tower: int64 `[M, L]`, M segments of at most 77 tokens each.

    Longer questions than one segment are cut; every segment has its own start and end token. The last one is filled up
    with end tokens, as CLIP pads: its causal text tower reads a segment at the first of them.
    """
    tokenizer = _tokenizer(clip.config.name_or_path)
    room = clip.config.text_config.max_position_embeddings - 2
    found = []
    for question in questions:
        ids = tokenizer(question, add_special_tokens=False)["input_ids"]
        pieces = [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]
        length = max(len(piece) for piece in pieces) + 1
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        found.append(torch.tensor([[start, *piece, *[end] * (length - len(piece))] for piece in pieces]))
    return found


@lru_cache(maxsize=1)
def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(name)
