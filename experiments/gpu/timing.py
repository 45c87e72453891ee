"""Times and memory of one way to run a model on a prompt: under a method, without any, or on a short prompt."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from experiments.asking.clock import MB, Clock, cache_mb
from experiments.asking.surroundings import wait
from pruning.choosing.base import Method
from pruning.engine.encoded import EncodedImages
from pruning.models.families import family_of

NEW_TOKENS = 7


class Run:
    """A method (None: the unpruned model) on a batch of prompts."""

    def __init__(
        self, model: PreTrainedModel, inputs: dict[str, Tensor], images: EncodedImages, method: Method | None
    ) -> None:
        self.model, self.inputs, self.images, self.method = model, inputs, images, method
        self.per_layer: list[list[int]] = []

    @property
    def shares_images(self) -> bool:
        return self.method is None or not self.method.changes_tower

    def prefill(self) -> dict[str, float]:
        """The whole prefill: vision tower, choosing, decoder."""
        return self._timed(self._context(), lambda: self._forward(self.inputs), "prefill")

    def decoder(self) -> dict[str, float]:
        """Choosing and decoder alone, behind images that are encoded; nothing where the method needs the tower."""
        if not self.shares_images:
            return {}
        given = self.images.inputs
        context = nullcontext() if self.method is None else self.method(self.model, self.images)
        return self._timed(context, lambda: self._forward(given), "decoder")

    def decode(self) -> dict[str, float]:
        """Milliseconds for each token after the first."""
        with self._context():
            return {"decode_ms": per_token(self.model, self.inputs)}

    def _context(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.method is None else self.method(self.model)

    def _forward(self, inputs: dict[str, Any]) -> Any:
        return self.model(**inputs, use_cache=True, logits_to_keep=1)

    def _timed(self, context: AbstractContextManager[Any], forward: Callable[[], Any], what: str) -> dict[str, float]:
        with context as record:
            measured, output = timed(self.model.device, forward)
            found = {f"{what}_ms": measured["ms"]}
            if what == "prefill":
                found |= {"peak_memory_mb": measured["peak_memory_mb"], "kv_cache_mb": cache_mb(output)}
                if record is not None:
                    found["choosing_ms"] = 1000 * record.seconds
                    self.per_layer = record.visual_tokens
        return found


class Short:
    """The unpruned model on a prompt with as many visual tokens as are kept, from the start.

    Its prefill is the vision tower on the full image, of whose tokens only the first `keep` go on, and the decoder.
    """

    method = None

    def __init__(self, model: PreTrainedModel, inputs: dict[str, Tensor], images: EncodedImages, keep: int) -> None:
        self.model, self.inputs = model, inputs
        self.pixels = {name: value for name, value in inputs.items() if name in ("image_sizes", "image_grid_thw")}
        family, ids_BL = family_of(model), inputs["input_ids"]
        rows, length = ids_BL.shape
        image = images.inputs["mm_encoder_outputs"]["image"].pooler_output
        visual_L = (ids_BL[0] == family.image_token_id).tolist()
        kept = [place for place in range(length) if not visual_L[place] or sum(visual_L[:place]) < keep]
        embeddings_BLD = model.get_input_embeddings()(ids_BL).clone()
        first = visual_L.index(True)
        for row, features_ND in enumerate(image):
            embeddings_BLD[row, first : first + keep] = features_ND[:keep].to(embeddings_BLD.dtype)
        short_BSD = embeddings_BLD[:, torch.tensor(kept, device=ids_BL.device)]
        positions = torch.arange(len(kept), device=ids_BL.device).expand(rows, -1)
        self.prompt = {
            "inputs_embeds": short_BSD.contiguous(),
            "attention_mask": torch.ones_like(positions),
            "position_ids": positions.expand(3, rows, -1) if family.mrope else positions,
        }
        layers = model.config.get_text_config().num_hidden_layers
        self.per_layer = [[keep] * layers] * rows

    def prefill(self) -> dict[str, float]:
        def forward() -> Any:
            self.model.get_image_features(pixel_values=self.inputs["pixel_values"], **self.pixels)
            return self.model(**self.prompt, use_cache=True, logits_to_keep=1)

        measured, output = timed(self.model.device, forward)
        return {
            "prefill_ms": measured["ms"],
            "peak_memory_mb": measured["peak_memory_mb"],
            "kv_cache_mb": cache_mb(output),
        }

    def decoder(self) -> dict[str, float]:
        measured, _ = timed(self.model.device, lambda: self.model(**self.prompt, use_cache=True, logits_to_keep=1))
        return {"decoder_ms": measured["ms"]}

    def decode(self) -> dict[str, float]:
        given = {name: value for name, value in self.prompt.items() if name != "position_ids"}
        return {"decode_ms": per_token(self.model, given)}


def timed(device: torch.device, run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Milliseconds, and the most memory that was allocated (NaN on a CPU), of something whose output comes back too."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    wait(device)
    begun = time.perf_counter()
    output = run()
    wait(device)
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated(device) / MB if cuda else float("nan")
    return {"ms": 1000 * seconds, "peak_memory_mb": peak}, output


def per_token(model: Any, inputs: dict[str, Tensor]) -> float:
    """Median milliseconds from one new token to the next."""
    clock = Clock()
    options = {} if "input_ids" in inputs else {"input_ids": None}
    model.generate(
        **inputs, **options, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1,
        streamer=clock, pad_token_id=0,
    )  # fmt: skip
    arrived = np.array(clock.seconds)[-NEW_TOKENS:]
    return float(1000 * np.median(np.diff(arrived)))
