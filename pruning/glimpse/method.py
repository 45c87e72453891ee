"""GlimpsePrune: a trained glimpse token looks at the image once, and what it does not need leaves."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from pruning.engine.seen import ObservedLayer
from pruning.glimpse import checkpoint
from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.modules import GlimpseModules
from pruning.glimpse.readout import Importance, glimpse_row, importance, vision_blocks
from pruning.glimpse.selection import KeepImportant
from pruning.models.family import Family
from pruning.models.sizes import Sizes


@dataclass
class GlimpsePrune(KeepImportant):
    """Zeng et al., arXiv 2508.01548.

    A glimpse token behind the prompt runs through layers 0..K, with a learned vector added in front of each. From its
    attention in layer K and from features of the vision tower a small predictor tells which visual tokens matter; the
    others leave, and the glimpse token too, before layer K+1 and from the caches of layers 0..K. Original positions.
    How many stay depends on the question, unless `fixed_remain_ratio` says it.

    Unlike the authors' code it takes batches with different numbers of images (also none) and decodes each row of a
    batch from its own position. Without a KV cache the choice made at first stays, but layers 0..K see the entire
    prompt again.

    Parameters:
        path: folder of a checkpoint (`checkpoint.load`), or
        modules: the modules themselves, in evaluation mode.
        The others: see `KeepImportant`.

    Example:
        with GlimpsePrune.from_pretrained("checkpoints/glimpse", max_remain_ratio=0.333)(model) as record:
            model.generate(**inputs)
    """

    name: ClassVar[str] = "glimpse"
    label: ClassVar[str] = "GlimpsePrune"
    changes_tower: ClassVar[bool] = True

    path: str | Path | None = None
    modules: GlimpseModules | None = field(default=None, repr=False)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **parameters: Any) -> Self:
        """The method with the modules of a checkpoint's folder.

        Raises:
            FileNotFoundError, ValueError: as `checkpoint.load`.
        """
        return cls(path=folder, modules=checkpoint.load(folder), **parameters)

    @cached_property
    def config(self) -> GlimpseConfig:
        """The configuration, which is read without the weights.

        Raises:
            ValueError: there is neither `path` nor `modules`.
        """
        if self.modules is not None:
            return self.modules.config
        if self.path is None:
            raise ValueError("glimpse is trained: give path=, the folder of a checkpoint, or modules=")
        return checkpoint.read_config(self.path)

    @cached_property
    def loaded(self) -> GlimpseModules:
        """The modules, loaded when first needed."""
        if self.modules is not None:
            return self.modules
        return checkpoint.load(self.path if self.path is not None else "")

    @property
    def first_pruned_layer(self) -> int:
        return self.config.reduce_layer + 1

    def vision_blocks(self, family: Family) -> list[int]:
        return vision_blocks(family, self.config)

    def deep_prompt(self, family: Family) -> Tensor:
        config, modules = self.config, self.loaded
        if not family.has_glimpse:
            raise TypeError(f"GlimpsePrune is made for Qwen2.5-VL and LLaVA, not for {type(family.model).__name__}")
        text, vision = family.language_model.config, family.model.config.vision_config
        sizes = (text.hidden_size, text.num_attention_heads, vision.hidden_size)
        if sizes != modules.sizes:
            raise ValueError(
                f"the modules are made for a hidden size, heads and vision width of {modules.sizes}, the model has "
                f"{sizes}: take the checkpoint that was trained with this model"
            )
        modules.to(family.model.device)
        return modules.token_table(text.rms_norm_eps)[: config.reduce_layer + 1]

    def importance(self, seen: ObservedLayer) -> Importance:
        if seen.tokens.visual != seen.full.visual:
            raise ValueError("glimpse looks at whole images: it cannot follow a method before the language model")
        assert seen.previous is not None
        row_BHS = glimpse_row(
            seen.previous, seen.last_B1, seen.tokens.mask_BS, before_softmax=self.config.use_attention_logits
        )
        step = seen.copies
        visual_BS = seen.visual_BS[::step]
        return importance(self.loaded, seen.vision, row_BHS[::step], visual_BS, seen.tokens.visual[::step])

    def choosing_flops(self, sizes: Sizes) -> int:
        return _token_flops(self.config, sizes) + _predictor_flops(self.config, sizes)


def _token_flops(config: GlimpseConfig, sizes: Sizes) -> int:
    """The glimpse token in layers 0..K, and its attention row read once more."""
    seen = sizes.visual_tokens + sizes.text_tokens
    heads = sizes.heads * sizes.head_dim
    projections = 2 * sizes.hidden * (heads + sizes.kv_heads * sizes.head_dim) + 3 * sizes.hidden * sizes.intermediate
    # Attention counts as dense: one more query and one more key.
    per_layer = 2 * projections + 4 * heads * (2 * seen + 1)
    return (config.reduce_layer + 1) * per_layer + 2 * (seen + 1) * heads


def _predictor_flops(config: GlimpseConfig, sizes: Sizes) -> int:
    """The predictor on one image."""
    count, width = sizes.visual_tokens, config.attn_fuse_size
    both = width + config.visual_cond_size
    condition = 2 * count * sizes.vision_width * config.visual_cond_size
    projections = 2 * count * (2 * both**2 + 2 * width**2)
    attention = 2 * count**2 * (both + width)
    mlp = 2 * count * 3 * width * 2 * width
    layers = len(config.selected_visual_layers) * (condition + projections + attention + mlp)
    return 2 * count * sizes.heads * width + layers + 2 * count * width
