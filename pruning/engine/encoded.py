"""Images that are encoded once and pruned by several methods."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pruning.models.families import family_of
from pruning.models.vision import Vision


class EncodedImages:
    """What a model's vision tower and projector made of the images of a batch, and what methods may ask of that run.

    Both run once, here, without any method. Each method is then given the same tensors as if it had run them itself,
    so its choice, its record and the model's outputs are the same bit for bit. Nothing stays on the model. Methods that
    change the tower (`Method.changes_tower`) cannot share and say so.

    Args:
        model: an unmodified model of a supported family.
        inputs: what the model takes, `pixel_values` among it, on the model's device.

    Raises:
        TypeError: the model is not supported.
        ValueError: there are no `pixel_values` in the inputs, or there are videos.

    Example:
        images = EncodedImages(model, inputs)
        for keep in (64, 32, 16):
            with pruning.make("vispruner", keep=keep)(model, images) as record:
                tokens = model.generate(**images.inputs)
    """

    def __init__(self, model: PreTrainedModel, inputs: Mapping[str, Any]) -> None:
        family = family_of(model)
        if inputs.get("pixel_values") is None:
            raise ValueError("there are no pixel_values to encode: leave prompts without images to the model")
        if inputs.get("pixel_values_videos") is not None:
            raise ValueError("videos cannot be encoded beforehand: open the methods' contexts without `images`")
        encode = family.core.get_image_features
        taken = [name for name in inspect.signature(encode).parameters if name in inputs]
        self._model = model
        self._prompt = {name: value for name, value in inputs.items() if name != "pixel_values"}
        self._vision = family.watch_vision()
        try:
            outputs = encode(**{name: inputs[name] for name in taken}, return_dict=True)
        finally:
            self._vision.detach()
        self._features = list(outputs.pooler_output)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs with the encoded images in place of the pixels, for one call of the model or of `generate`.

        Made anew every time, since `generate` repeats the images of beams in place.
        """
        return self._prompt | {
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=self._features)}
        }

    def for_model(self, model: nn.Module) -> Vision:
        """The run of the vision tower, for a method that is about to start on the model that encoded the images.

        Raises:
            ValueError: it is another model.
        """
        if model is not self._model:
            raise ValueError("another model encoded these images: encode them with the model that is to be pruned")
        self._vision.fresh = True
        return self._vision

    def refuse_others(self, encoded: Any) -> None:
        """Raise ValueError unless a prompt's encoded images (None where it has none) are these."""
        features = [] if encoded is None else encoded.pooler_output
        # Beams repeat the list, not the tensors in it.
        if len(features) == 0 or features[0] is not self._features[0]:
            raise ValueError(
                "this context prunes images that were encoded beforehand: call the model with **images.inputs, or "
                "open the context without `images`"
            )
