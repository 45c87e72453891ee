"""The visual token importance predictor (VIP) of GlimpsePrune, arXiv 2508.01548, section 3.

Shape suffixes: N visual tokens of all images together, H heads of the language model, C width of the vision features, F
width of the predictor, Q width of those features in it, d width of a head, G blocks of tokens that see each other,
M tokens of the longest block.
Parameters carry the names of the authors' checkpoints.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.nn.utils.rnn import pad_sequence
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from pruning.glimpse.configuration import GlimpseConfig

ROPE_THETA = 10_000.0
NORM_EPS = 1e-6
Rotary = tuple[Tensor, Tensor]


class ImportancePredictor(nn.Module):
    """From one attention row and vision features to a logit of importance for every visual token.

    Args:
        config: widths and layers.
        heads: heads of the language model, the entries of the attention row per visual token.
        visual_width: width of the vision tower.
    """

    def __init__(self, config: GlimpseConfig, heads: int, visual_width: int) -> None:
        super().__init__()
        width, layers = config.attn_fuse_size, len(config.selected_visual_layers)
        self.attn_in_proj = nn.Linear(heads, width)
        self.cond_in_projs = nn.ModuleList(nn.Linear(visual_width, config.visual_cond_size) for _ in range(layers))
        self.layers = nn.ModuleList(PredictorLayer(config) for _ in range(layers))
        # Only the last layer has an output; the list keeps its place in the checkpoint's names.
        self.attn_out_projs = nn.ModuleList([*(nn.Identity() for _ in range(layers - 1)), nn.Linear(width, 1)])
        self.visual_width = visual_width
        self.head_dim = (width + config.visual_cond_size) // config.attn_fuse_num_heads

    def forward(
        self, attention_NH: Tensor, conditions_LNC: Tensor, positions_N2: Tensor, lengths: Sequence[int]
    ) -> Tensor:
        """Logits `[N]`; their sigmoid is the probability that a token matters.

        Args:
            attention_NH: attention of the glimpse token, before the softmax or its logarithm.
            conditions_LNC: vision features for each of the L predictor layers.
            positions_N2: int64 row and column of every token in its image, merged grid.
            lengths: tokens of each block (an image, or a temporal patch of a video), which attend to each other only.
        """
        blocks = list(lengths)
        cos_GMd, sin_GMd = (_padded(part, blocks) for part in rotary(positions_N2, self.head_dim))
        hidden_GMF = _padded(self.attn_in_proj(attention_NH), blocks)
        mask_G11M = None
        if len(set(blocks)) > 1:
            last_G1 = torch.tensor(blocks, device=hidden_GMF.device)[:, None]
            mask_G11M = (torch.arange(max(blocks), device=hidden_GMF.device) < last_G1)[:, None, None]
        for layer, project, condition_NC in zip(self.layers, self.cond_in_projs, conditions_LNC, strict=True):
            condition_GMQ = _padded(project(condition_NC), blocks)
            hidden_GMF = layer(hidden_GMF, condition_GMQ, (cos_GMd, sin_GMd), mask_G11M)
        logits_GM = self.attn_out_projs[-1](hidden_GMF)[..., 0]
        return torch.cat([logits_M[:count] for logits_M, count in zip(logits_GM, blocks, strict=True)])


class PredictorLayer(nn.Module):
    """Attention whose queries and keys also see vision features, and a gated MLP, both behind a norm."""

    def __init__(self, config: GlimpseConfig) -> None:
        super().__init__()
        width = config.attn_fuse_size
        self.norm1 = nn.RMSNorm(width, eps=NORM_EPS)
        self.norm2 = nn.RMSNorm(width, eps=NORM_EPS)
        self.attn = ConditionedAttention(width, config.visual_cond_size, config.attn_fuse_num_heads)
        self.mlp = GatedMLP(width)

    def forward(self, hidden_GMF: Tensor, condition_GMQ: Tensor, rotary: Rotary, mask_G11M: Tensor | None) -> Tensor:
        hidden_GMF = hidden_GMF + self.attn(self.norm1(hidden_GMF), condition_GMQ, rotary, mask_G11M)
        return hidden_GMF + self.mlp(self.norm2(hidden_GMF))


class ConditionedAttention(nn.Module):
    """Queries and keys of hidden states and vision features side by side, values of the hidden states alone."""

    def __init__(self, width: int, condition_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width + condition_width, width + condition_width, bias=False)
        self.k_proj = nn.Linear(width + condition_width, width + condition_width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, normed_GMF: Tensor, condition_GMQ: Tensor, rotary: Rotary, mask_G11M: Tensor | None) -> Tensor:
        both = torch.cat([normed_GMF, condition_GMQ], dim=-1)
        queries, keys = (projection(both).unflatten(-1, (self.heads, -1)) for projection in (self.q_proj, self.k_proj))
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, *rotary)
        values = self.v_proj(normed_GMF).unflatten(-1, (self.heads, -1))
        mixed = scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask_G11M
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    """SwiGLU of twice the width, with biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, 2 * width)
        self.up_proj = nn.Linear(width, 2 * width)
        self.down_proj = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(hidden)) * self.up_proj(hidden))


def rotary(positions_N2: Tensor, head_dim: int) -> Rotary:
    """cos and sin `[N, d]` in float32: a quarter of the head for the row, one for the column, both twice."""
    steps = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=positions_N2.device)
    frequencies = ROPE_THETA ** -(steps / (head_dim // 2))
    angles_Nd = (positions_N2[..., None] * frequencies).flatten(1).repeat(1, 2)
    return angles_Nd.cos(), angles_Nd.sin()


def raster_positions(grids: Sequence[tuple[int, int]]) -> Tensor:
    """int64 `[N, 2]`, row and column of every token of rasters of the given rows and columns, one after the other."""
    return torch.cat([torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) for rows, columns in grids])


def _padded(values_NF: Tensor, lengths: list[int]) -> Tensor:
    return pad_sequence(values_NF.split(lengths), batch_first=True)
