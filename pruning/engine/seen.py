"""What a method sees when it chooses. Everything is worked out when asked and costs nothing otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pruning.engine.tokens import Tokens, upload
from pruning.models.family import Family
from pruning.models.projections import Projections, rows_ahead
from pruning.models.vision import Vision


@dataclass(frozen=True)
class Prompt:
    """The prompt as the language model gets it: one row a sample.

    Attributes:
        embeddings_BLD: text and projected visual tokens.
        tokens: which of them are visual, text or padding.
        ids_BL: int64 token ids, None where the caller gave embeddings.
    """

    embeddings_BLD: Tensor
    tokens: Tokens
    ids_BL: Tensor | None


@dataclass(frozen=True)
class Observed:
    """Images of equal size before the language model runs. B counts images here, N the visual tokens of each.

    In LLaVA all images of a batch come at once; elsewhere once for every size that occurs.

    Attributes:
        prompt: the prompts of the batch, one row a sample.
        samples: for every image, its sample's row in the prompt.
        slots_BN: int64 places of the visual tokens in that row.
        repacks: whether surviving tokens are numbered anew.
    """

    family: Family
    vision: Vision
    prompt: Prompt
    images: Sequence[int]
    samples: Sequence[int]
    slots_BN: Tensor
    repacks: bool

    @property
    def num_images(self) -> int:
        return self.slots_BN.shape[0]

    @property
    def num_visual(self) -> int:
        """Visual tokens of each image, newlines included."""
        return self.slots_BN.shape[1]

    @property
    def device(self) -> torch.device:
        return self.slots_BN.device

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns where the visual tokens of an image form one raster, else None."""
        return self.vision.images[self.images[0]].grid

    @property
    def rasters(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every raster that the visual tokens of an image form, those of a video one a frame.

        Frames are the temporal patches that the language model gets; () where the tokens form no rasters.
        """
        return self.vision.images[self.images[0]].rasters

    @cached_property
    def _index_BN(self) -> Tensor:
        return torch.stack([self.vision.images[image].index_N for image in self.images])

    @cached_property
    def cells_BN4(self) -> Tensor:
        """The part of the image every visual token stands for: x0, y0, x1, y1 in 0..1, NaN for newlines."""
        return torch.stack([self.vision.images[image].cells_N4 for image in self.images])

    @cached_property
    def cls_attention_BHN(self) -> Tensor:
        """Attention of [CLS] in the vision layer of the family, without [CLS]'s own column; float32.

        Where the tower has no [CLS]: the mean attention received over all queries, merged as the patches are.
        A newline takes the value of the token to its left.
        """
        return self.vision.attention_HT[:, self._index_BN].transpose(0, 1)

    @cached_property
    def watched_attention(self) -> list[Tensor]:
        """As `cls_attention_BHN`, `[B, H, N]` for every block of the tower in the method's `attention_blocks`."""
        return [attention_HT[:, self._index_BN].transpose(0, 1) for attention_HT in self.vision.watched_attention]

    @cached_property
    def watched_received(self) -> list[Tensor]:
        """The mean attention that every token receives there over all queries, [CLS] among them: `[B, H, N]` each."""
        return [received_HT[:, self._index_BN].transpose(0, 1) for received_HT in self.vision.watched_received]

    @cached_property
    def frame_attention_BN(self) -> Tensor:
        """Attention of the mean query of every frame over the frame's tokens, mean over heads; each frame sums to 1.

        In the layer of `cls_attention_BHN`, its keys merged as the patches are. Towers that take videos have it.
        """
        return self.vision.frame_attention_T[self._index_BN]

    @cached_property
    def features_BNC(self) -> Tensor:
        """Vision features of the family's vision layer, before the projector; a newline takes those to its left."""
        return self.vision.features_TC[self._index_BN]

    @cached_property
    def cls_features_BC(self) -> Tensor | None:
        """Features of [CLS] in that layer (of the base crop); None where the tower has none."""
        cls_IC = self.vision.cls_IC
        return None if cls_IC is None else cls_IC[upload(self.images, cls_IC.device)]

    @cached_property
    def head_keys_BNC(self) -> Tensor:
        """Attention keys in that layer, the mean over its heads, before any rotary embedding."""
        return self.vision.head_keys_TC[self._index_BN]

    @cached_property
    def wide_attention_BN(self) -> Tensor:
        """As `cls_attention_BHN`, from the tower's last layer taken as a single head of the entire width.

        In Qwen's towers from the layer of the features, whose attention is not confined to windows.
        """
        return self.vision.wide_attention_T[self._index_BN]

    @cached_property
    def wide_keys_BNC(self) -> Tensor:
        """Attention keys of the same layer, heads not split, before any rotary embedding."""
        return self.vision.wide_keys_TC[self._index_BN]

    @cached_property
    def projects_alone(self) -> bool:
        """Whether the projector maps `features_BNC` token by token, as in LLaVA.

        Qwen's merger takes patches in fours, and some LLaVA models join the features of several layers.
        """
        return isinstance(getattr(self.family.model.config, "vision_feature_layer", None), int)

    @cached_property
    def mergeable_BNC(self) -> Tensor:
        """What merging methods average: the features where they can be projected afterwards, else `projected_BND`."""
        return self.features_BNC if self.projects_alone else self.projected_BND

    def project(self, merged_BTC: Tensor) -> Tensor:
        """Averages of `mergeable_BNC` in the width and dtype of the language model."""
        if self.projects_alone:
            merged_BTC = self.family.projector(merged_BTC.to(self.features_BNC.dtype))
        return merged_BTC.to(self.projected_BND.dtype)

    @cached_property
    def projected_BND(self) -> Tensor:
        """The visual tokens as the language model gets them."""
        return self.prompt.embeddings_BLD[self._samples_B[:, None], self.slots_BN]

    @cached_property
    def keys_B(self) -> Tensor:
        """int64, a number for every image that depends on its pixels alone, for seeding choices by image."""
        return self.vision.keys_I[upload(self.images, self.vision.keys_I.device)].to(self.device)

    @cached_property
    def text_BL(self) -> Tensor:
        """bool, the text tokens in the prompt of every image's sample."""
        return self.prompt.tokens.text_BS[self._samples_B]

    @cached_property
    def text_embeddings_BLD(self) -> Tensor:
        """Embeddings of the prompt of every image's sample; `text_BL` says which are text."""
        return self.prompt.embeddings_BLD[self._samples_B]

    @cached_property
    def _samples_B(self) -> Tensor:
        return upload(self.samples, self.device)


@dataclass(frozen=True)
class ObservedLayer:
    """The tokens in front of a decoder layer. B counts rows of the batch, S the tokens still in a row.

    Attributes:
        vision: the run of the vision tower on the images of all samples.
        layer: 0-based layer that is about to run.
        hidden_BSD: its input.
        tokens: which tokens these are.
        prompt: the prompt as it entered the language model.
        full: the tokens of the prompt before anything left.
        copies: rows that stand for one sample (beams): a choice is made by the first of them.
        previous: projections of layer `layer - 1`, None in front of layer 0.
        rotary: cos and sin `[B, S, d]` that the layer is about to apply.
    """

    family: Family
    vision: Vision
    layer: int
    hidden_BSD: Tensor
    tokens: Tokens
    prompt: Prompt
    full: Tokens
    copies: int
    previous: Projections | None
    rotary: tuple[Tensor, Tensor]

    @property
    def visual_BS(self) -> Tensor:
        """bool, True for visual tokens."""
        return self.tokens.visual_BS

    @property
    def last_B1(self) -> Tensor:
        """int64 place of every row's last token: of the method's own one, if it put one there."""
        return self.tokens.last_B[:, None]

    def attention(self, rows_BR: Tensor | None = None) -> Tensor:
        """Attention rows `[B, H, R, S]` of the layer that just ran; default: of the last token. Softmax in float32."""
        if self.previous is None:
            raise RuntimeError("no layer has run in front of layer 0: a method that ranks by attention starts at 1")
        return self.previous.rows(self.last_B1 if rows_BR is None else rows_BR, self.tokens.mask_BS)

    def attention_ahead(self, rows_BR: Tensor | None = None, *, rope: bool = True) -> Tensor:
        """Attention rows `[B, H, R, S]` that the coming layer would compute on all tokens still here.

        Args:
            rows_BR: int64 places of the queries; default: of the last token.
            rope: whether queries and keys get the layer's rotary embedding.
        """
        rows_BR = self.last_B1 if rows_BR is None else rows_BR
        layer = self.family.layers[self.layer]
        return rows_ahead(layer, self.hidden_BSD, self.rotary if rope else None, rows_BR, self.tokens.mask_BS)
