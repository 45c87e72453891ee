"""The models that `model` in params.yaml may name. Only names: experiments/asking/models.py loads one."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parents[2]


Image = Literal["crop", "pad"]
System = Literal["none", "vicuna"]


class ModelError(ValueError):
    """A model that cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True)
class Preset:
    """One model and how the experiments run it.

    Attributes:
        source: id on the Hugging Face hub, or the absolute path of a folder.
        dtype: precision on a GPU ("auto": as saved); on a CPU it is always float32, which is what CPUs are fast in.
        attention: attention implementation. The methods work with sdpa, eager and flash_attention_2 alike.
        image: "crop": as the processor that is saved with the model does it, which for LLaVA-1.5 shows the centre of an
            image. "pad": padded to a square first, as LLaVA's own evaluation and the pruning papers' code do it.
        system: the sentence in front of every prompt. "none": what the chat template puts there by itself. "vicuna":
            the one of LLaVA's own evaluation.
        notes: one line for the reader.
    """

    source: str
    dtype: str = "auto"
    attention: str = "sdpa"
    image: "Image" = "crop"
    system: "System" = "none"
    notes: str = ""


# Which vision layer a model hands to its projector, and so which [CLS] attention is read, is part of its own config;
# pruning/models/families.py reads it there.
PRESETS: dict[str, Preset] = {
    "scenes-llava": Preset(
        str(REPOSITORY / "data/models/scenes-llava"), "float32", notes="embedded; 144 visual tokens, 8 decoder layers"
    ),
    "scenes-qwen": Preset(
        str(REPOSITORY / "data/models/scenes-qwen"), "float32", notes="embedded; any resolution, no [CLS], mRoPE"
    ),
    "llava-1.5-7b": Preset(
        "llava-hf/llava-1.5-7b-hf",
        "float16",
        image="pad",
        system="vicuna",
        notes="576 visual tokens, 32 decoder layers",
    ),
    "llava-1.5-13b": Preset(
        "llava-hf/llava-1.5-13b-hf",
        "float16",
        image="pad",
        system="vicuna",
        notes="576 visual tokens, 40 decoder layers",
    ),
    "llava-next-7b": Preset(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "float16",
        system="vicuna",
        notes="up to 2880 visual tokens, 32 decoder layers",
    ),
    "qwen2-vl-7b": Preset("Qwen/Qwen2-VL-7B-Instruct", "bfloat16", notes="any resolution, no [CLS], mRoPE"),
    "qwen2.5-vl-3b": Preset("Qwen/Qwen2.5-VL-3B-Instruct", "bfloat16", notes="any resolution, no [CLS], mRoPE"),
    "qwen2.5-vl-7b": Preset("Qwen/Qwen2.5-VL-7B-Instruct", "bfloat16", notes="any resolution, no [CLS], mRoPE"),
}


def find(name: str) -> Preset:
    """The preset called `name`, or one made for the folder `name`.

    Raises:
        ModelError: neither a preset nor a folder; the message lists the presets.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name and Path(name).is_dir():
        return Preset(str(Path(name).resolve()))
    close = difflib.get_close_matches(name.lower(), PRESETS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ModelError(
        f"{name!r} is neither a preset nor a folder.{hint} Presets: {', '.join(PRESETS)}; "
        "or give the path of a folder with a saved model and its processor."
    )
