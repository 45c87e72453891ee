"""How a model that `model` in params.yaml names is loaded, with its processor.

    model, processor = load("scenes-llava")

A preset moves the whole pipeline to another model; a folder with a saved model and its processor works too.
"""

import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import is_flash_attn_2_available

from experiments.asking.handling import handled
from experiments.asking.processors import load_processor
from experiments.named.presets import ModelError, find
from pruning.models.families import FAMILIES


def load(
    name: str, device: str = "auto", attention: str | None = None, weights: str | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a model for evaluation, and its processor. Weights come from safetensors files only.

    Args:
        name: a preset or a folder.
        weights: a folder with the weights and the processor of the preset; all the rest is as the preset has it.
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
    source = preset.source if weights is None else str(Path(weights).resolve())
    _check_files(name, source)
    where = _device(device)
    try:
        config = AutoConfig.from_pretrained(source)
        _check_family(name, config)
        processor = handled(load_processor(source, config), config, preset.image, preset.system)
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
    supported = {family.model_class.config_class: family.model_class.__name__ for family in FAMILIES}
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
