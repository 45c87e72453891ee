"""Choices that answer a question about a model instead of saving compute; the analyses run them like any method.

They are no competitors and stand in no registry: one keeps a part of the image whatever it shows, one takes everything
visual away, and one reads the language model before it prunes for it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM, KeepPerImage
from pruning.choosing.selection import stable_top_k
from pruning.engine.seen import Observed, ObservedLayer
from pruning.methods.vtw import VTW
from pruning.models.projections import Projections, watch
from pruning.models.sizes import Sizes


@dataclass
class KeepQuartile(InsideLLM):
    """Only a quarter of the visual tokens, by position, enters a layer and those after it (arXiv 2412.01818, shift).

    Original positions: what changes is what can be seen, not where it stands.

    Parameters:
        layer: 0-based; at 0 the language model never sees the rest.
        quartile: 1 (the first tokens) to 4 (the last, nearest to the question), over all visual tokens of a prompt.
    """

    name: ClassVar[str] = "keep_quartile"

    layer: int = 0
    quartile: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("layer", self.layer)
        checks.whole_number("quartile", self.quartile, minimum=1)
        if self.quartile > 4:
            raise ValueError(f"quartile must be 1, 2, 3 or 4, not {self.quartile}")

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.layer >= num_layers:
            raise ValueError(f"layer={self.layer} is not one of the {num_layers} decoder layers: lower layer")
        return {self.layer: num_visual * self.quartile // 4 - num_visual * (self.quartile - 1) // 4}

    def score(self, seen: ObservedLayer) -> Tensor:
        count_B1 = seen.visual_BS.sum(dim=1, keepdim=True)
        number_BS = seen.visual_BS.cumsum(dim=1) - 1
        first_B1, end_B1 = count_B1 * (self.quartile - 1) // 4, count_B1 * self.quartile // 4
        return ((number_BS >= first_B1) & (number_BS < end_B1)).float()

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


@dataclass
class Withdraw(VTW):
    """No visual token enters layer k and those after it, which for this probe may be the first layer, too."""

    name: ClassVar[str] = "withdraw"
    first: ClassVar[int] = 0


@dataclass
class KeepByLastQuery(KeepPerImage):
    """What the last prompt token attends to most in a layer of the unpruned model, dropped before the language model.

    The first layers run on the entire prompt to find out (mean over heads, softmax over the whole prompt), and then
    again on what stays; positions are re-packed.

    Parameters:
        keep: tokens kept of every image.
        layer: 0-based decoder layer whose attention counts.
        rope: False takes the RoPE decay out: neither the query nor the keys are rotated.
    """

    name: ClassVar[str] = "keep_by_last_query"

    layer: int = 1
    rope: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("layer", self.layer)

    def select(self, seen: Observed) -> Tensor:
        tokens = seen.prompt.tokens
        last_BHS = self._projections(seen).rows(tokens.last_B[:, None], tokens.mask_BS, rope=self.rope)[:, :, 0]
        attention_BS, rows_B = last_BHS.mean(dim=1), torch.tensor(seen.samples, device=last_BHS.device)
        return stable_top_k(attention_BS[rows_B[:, None], seen.slots_BN], self.keep)

    def _projections(self, seen: Observed) -> Projections:
        """Queries and keys of the layer over the entire prompt."""
        tokens, hidden_BLD, model = seen.prompt.tokens, seen.prompt.embeddings_BLD, seen.family.language_model
        if self.layer >= len(seen.family.layers):
            raise ValueError(f"layer={self.layer} is not one of the {len(seen.family.layers)} decoder layers")
        positions = tokens.positions_ABS if seen.family.mrope else tokens.positions_ABS[0]
        rotary = model.rotary_emb(hidden_BLD, positions)
        mask = create_causal_mask(
            config=model.config,
            inputs_embeds=hidden_BLD,
            attention_mask=tokens.mask_BS if tokens.padded else None,
            past_key_values=None,
            layer_idx=0,
            allow_is_causal_skip=not tokens.padded,
        )
        with watch([seen.family.layers[self.layer]]) as (watched,):
            for layer in seen.family.layers[: self.layer + 1]:
                hidden_BLD = layer(hidden_BLD, attention_mask=mask, position_embeddings=rotary)
            return watched.projections

    def choosing_flops(self, sizes: Sizes) -> int:
        prompt, width = sizes.visual_tokens + sizes.text_tokens, sizes.heads * sizes.head_dim
        projections = 2 * sizes.hidden * width + 2 * sizes.hidden * sizes.kv_heads * sizes.head_dim
        per_token = projections + 3 * sizes.hidden * sizes.intermediate + 2 * prompt * width
        return 2 * (self.layer + 1) * prompt * per_token + 2 * prompt * width
