"""Random GlimpsePrune modules for the tiny models: K = 2 of 6 decoder layers."""

import torch
from transformers import PreTrainedModel

from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.modules import GlimpseModules

K = 2


def tiny_config(model: PreTrainedModel, glimpse_layers: int = K + 1) -> GlimpseConfig:
    qwen = model.config.model_type == "qwen2_5_vl"
    return GlimpseConfig(
        reduce_layer=K,
        glimpse_layers=glimpse_layers,
        selected_visual_layers=(2, 0) if qwen else (2, 1),
        use_attention_logits=qwen,
        attn_fuse_size=16,
        visual_cond_size=16,
        attn_fuse_num_heads=2,
    )


def tiny_modules(model: PreTrainedModel, glimpse_layers: int = K + 1) -> GlimpseModules:
    """As at the start of training, but for a larger token and an output that keeps about half of the tokens."""
    torch.manual_seed(5)
    modules = GlimpseModules.for_model(model, tiny_config(model, glimpse_layers)).eval()
    with torch.no_grad():
        for parameter in modules.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.7 * parameter[0].numel() ** -0.5)
        if not modules.config.use_attention_logits:  # logarithms of attention are all around -4
            modules.attn_fuser.attn_in_proj.bias.copy_(4 * modules.attn_fuser.attn_in_proj.weight.sum(dim=1))
            modules.attn_fuser.attn_out_projs[-1].bias.fill_(-0.7)
    return modules
