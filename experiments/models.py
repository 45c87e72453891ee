"""The models that `model` in params.yaml may name, and how one is loaded.

    model, processor = load("scenes-llava")

A preset moves the whole pipeline to another model; a folder with a saved model and its processor works too.
"""

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import is_flash_attn_2_available

from experiments.processors import load_processor
from pruning.families import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[1]


class ModelError(ValueError):
    """A model that cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True)
class Preset:
    """One model and how the experiments run it.

    Attributes:
        source: id on the Hugging Face hub, or the absolute path of a folder.
        dtype: precision on a GPU ("auto": as saved); on a CPU it is always float32, which is what CPUs are fast in.
        attention: attention implementation. The methods work with sdpa, eager and flash_attention_2 alike.
        notes: one line for the reader.
    """

    source: str
    dtype: str = "auto"
    attention: str = "sdpa"
    notes: str = ""


# Which vision layer a model hands to its projector, and so which [CLS] attention is read, is part of its own config;
# pruning/families.py reads it there.
PRESETS: dict[str, Preset] = {
    "scenes-llava": Preset(
        str(REPOSITORY / "data/models/scenes-llava"), "float32", notes="embedded; 144 visual tokens, 8 decoder layers"
    ),
    "scenes-qwen": Preset(
        str(REPOSITORY / "data/models/scenes-qwen"), "float32", notes="embedded; any resolution, no [CLS], mRoPE"
    ),
    "llava-1.5-7b": Preset("llava-hf/llava-1.5-7b-hf", "float16", notes="576 visual tokens, 32 decoder layers"),
    "llava-1.5-13b": Preset("llava-hf/llava-1.5-13b-hf", "float16", notes="576 visual tokens, 40 decoder layers"),
    "llava-next-7b": Preset(
        "llava-hf/llava-v1.6-vicuna-7b-hf", "float16", notes="up to 2880 visual tokens, 32 decoder layers"
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


def load(name: str, device: str = "auto", attention: str | None = None) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a model for evaluation, and its processor. Weights come from safetensors files only.

    Args:
        name: a preset or a folder.
        device: "auto" (a CUDA GPU if there is one, else the CPU) or a torch device such as "cuda:1".
        attention: another attention implementation than the preset's. Where flash_attention_2 is asked for and the
            package flash-attn or a GPU is missing, sdpa takes its place, with a warning.

    Returns:
        The model, in evaluation mode on the device, and the processor, which pads on the left.

    Raises:
        ModelError: unknown name, unsupported family, no such device, files missing, damaged or not in safetensors, the
            hub out of reach.
    """
    preset = find(name)
    source = preset.source
    _check_files(name, source)
    where = _device(device)
    try:
        config = AutoConfig.from_pretrained(source)
        _check_family(name, config)
        processor = load_processor(source, config)
        model, info = AutoModelForImageTextToText.from_pretrained(
            source,
            config=config,
            dtype=torch.float32 if where.type == "cpu" else preset.dtype,
            device_map=where,
            attn_implementation=_attention(attention or preset.attention, where),
            use_safetensors=True,
            output_loading_info=True,
        )
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(_explain(name, source, error)) from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(
            f"model {name}: {len(info['missing_keys'])} weights are missing from {source} ({some}, ...). "
            "The download or the checkpoint is incomplete: get it again."
        )
    processor.tokenizer.padding_side = "left"  # a batch generates at its right end
    return model.eval(), processor


def _check_files(name: str, source: str) -> None:
    """A folder is checked before anything is read: transformers would answer a missing file with a look at the hub."""
    folder = Path(source)
    if not folder.is_absolute():
        return
    if not folder.is_dir():
        raise ModelError(
            f"model {name}: {folder} is missing. If it is part of the repository: git checkout -- {folder}"
        )
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ModelError(
            f"model {name}: there is no config.json in {source}. Save the model there with save_pretrained."
        )
    if not any(file.endswith(".safetensors") for file in names):
        pickled = [file for file in sorted(names) if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        found = f"{', '.join(pickled)} can run code when loaded and is not used" if pickled else "it holds no weights"
        raise ModelError(
            f"model {name}: there are no .safetensors weights in {source}: {found}. "
            "Save the model there in safetensors, as save_pretrained does."
        )
    if not names & {"processor_config.json", "preprocessor_config.json"}:
        raise ModelError(
            f"model {name}: there is no processor in {source}. Save it there too: processor.save_pretrained."
        )


def _check_family(name: str, config: PreTrainedConfig) -> None:
    """Before gigabytes of weights are fetched for a model that no method can prune."""
    supported = {family.config_class: family.__name__ for family in FAMILIES}
    if type(config) not in supported:
        raise ModelError(
            f"model {name}: models of type {config.model_type!r} are not supported. Supported: "
            f"{', '.join(supported.values())}."
        )


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise ModelError(f'device {device!r} cannot be used here ({error}). Use "auto" or "cpu".') from error
    return chosen


def _attention(asked: str, device: torch.device) -> str:
    if asked != "flash_attention_2" or (device.type == "cuda" and is_flash_attn_2_available()):
        return asked
    missing = (
        "flash-attn is not installed (pip install flash-attn --no-build-isolation)"
        if device.type == "cuda"
        else "there is no GPU"
    )
    warnings.warn(f"flash_attention_2 was asked for, but {missing}: using sdpa.", stacklevel=3)
    return "sdpa"


def _explain(name: str, source: str, error: Exception) -> str:
    cause = str(error).strip().partition("\n")[0]
    if Path(source).is_absolute():
        return f"model {name}: {source} cannot be loaded: {cause} Save or download the model and its processor again."
    return (
        f"model {name}: {source} could not be fetched from the Hugging Face hub. Connect to the network (and unset "
        f"HF_HUB_OFFLINE), or download it elsewhere (`hf download {source} --local-dir FOLDER`) and give the folder as "
        f"`model`. The cause: {cause}"
    )
