"""What GlimpsePrune adds to a model: the glimpse token and the predictor."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel

from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.predictor import ImportancePredictor
from pruning.models.families import family_of


class GlimpseModules(nn.Module):
    """The trained parameters, under the names of the authors' checkpoints.

    Args:
        config: layers and widths.
        hidden_size: D, width of the language model; heads: its attention heads; visual_width: of the vision tower.

    Initialised as the authors do: embeddings from N(0, .02), weights xavier-uniform, biases 0, norms 1.
    """

    def __init__(self, config: GlimpseConfig, hidden_size: int, heads: int, visual_width: int) -> None:
        super().__init__()
        self.config = config
        self.attn_fuser = ImportancePredictor(config, heads, visual_width)
        self.learnable_embeddings = nn.Parameter(torch.randn(config.glimpse_layers, 1, hidden_size) * 0.02)
        self.le_proj = nn.Linear(hidden_size, hidden_size)
        self.le_norm = nn.RMSNorm(hidden_size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def for_model(cls, model: PreTrainedModel, config: GlimpseConfig) -> Self:
        """Untrained modules in the sizes of a model, float32 on its device.

        Raises:
            TypeError: the model is neither a Qwen2.5-VL nor a LLaVA.
            ValueError: `config` names layers that the model does not have.
        """
        family = family_of(model)
        if not family.has_glimpse:
            raise TypeError(f"GlimpsePrune is made for Qwen2.5-VL and LLaVA, not for {type(model).__name__}")
        text, vision = model.config.get_text_config(), model.config.vision_config
        layers = text.num_hidden_layers
        if config.reduce_layer > layers - 2 or config.glimpse_layers > layers:
            raise ValueError(
                f"reduce_layer={config.reduce_layer} and glimpse_layers={config.glimpse_layers} do not fit a language "
                f"model of {layers} layers: they can be {layers - 2} and {layers} at most"
            )
        modules = cls(config, text.hidden_size, text.num_attention_heads, vision.hidden_size)
        return modules.to(model.device)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Width of the language model, its heads, width of the vision tower."""
        return self.le_proj.out_features, self.attn_fuser.attn_in_proj.in_features, self.attn_fuser.visual_width

    def token_table(self, norm_eps: float) -> Tensor:
        """The table `[glimpse_layers, D]`: row 0 is the token's embedding, row l is added to it in front of layer l.

        Args:
            norm_eps: `rms_norm_eps` of the language model.
        """
        projected_LD = self.le_proj(self.learnable_embeddings[:, 0])
        return rms_norm(projected_LD, projected_LD.shape[-1:], self.le_norm.weight, norm_eps)
