"""FLOPs of one answered question."""

from collections.abc import Sequence
from typing import Any

from experiments.recorded.predictions import TERMS
from pruning.choosing.base import Method
from pruning.models import flops
from pruning.models.sizes import Sizes


def flops_of(
    config: Any,
    method: Method,
    text_tokens: int,
    images: list[Any],
    visual_tokens: int,
    per_layer: Sequence[int],
) -> dict[str, float]:
    """The `TERMS` of one question, with `full`: the total of the unpruned model.

    Args:
        config: the model's.
        method: with the parameters that it was asked with.
        text_tokens: tokens of the prompt that are not visual.
        images: see pruning.models.flops.count.
        visual_tokens: before pruning.
        per_layer: visual tokens that entered each decoder layer.
    """
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
        longer = flops.count(config, per_layer, text_tokens + 1, images, choosing=choosing)
        terms["per_decoded_token"] = float(longer.total)
    full = flops.count(config, [visual_tokens] * len(per_layer), text_tokens, images)
    return terms | {"full": float(full.total)}
