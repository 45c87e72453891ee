"""FLOPs of one answered question."""

import json
from typing import Any

import pruning
from pruning.choosing.budget import mean_visual_tokens
from pruning.models import flops
from pruning.models.sizes import Sizes

TERMS = ("vision", "projector", "decoder", "choosing", "total", "per_decoded_token")


def flops_of(
    config: Any,
    name: str,
    settings: str,
    text_tokens: int,
    images: list[Any],
    visual_tokens: int,
    per_layer: tuple[int, ...],
) -> dict[str, float]:
    """The terms of one question, with `full`: the total of the unpruned model, and the mean visual tokens."""
    method = pruning.make(name, **json.loads(settings))
    sizes = Sizes.of(
        config,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        vision_tokens=flops.vision_tokens(config, images),
    )
    choosing = method.choosing_flops(sizes)
    counted = flops.count(config, per_layer, text_tokens, images, choosing=choosing)
    terms = {term: float(getattr(counted, term)) for term in TERMS}
    if not method.uses_cache:  # no cache: every step is a prefill of one token more
        terms["per_decoded_token"] = flops.count(config, per_layer, text_tokens + 1, images, choosing=choosing).total
    full = flops.count(config, [visual_tokens] * len(per_layer), text_tokens, images)
    return terms | {"full": full.total, "mean_visual_tokens": mean_visual_tokens(per_layer)}
