"""GlimpsePrune checkpoints: a folder of config.json and weights. Reads the authors' layout too, writes safetensors."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.modules import GlimpseModules

CONFIGS = ("config.json", "glimpse_config.json")
WEIGHTS = "glimpse_modules.safetensors"
AUTHORS_WEIGHTS = ("new_modules_gp.safetensors", "new_modules_gp.pt")


def read_config(folder: str | Path) -> GlimpseConfig:
    """The configuration in a checkpoint's folder.

    Raises:
        FileNotFoundError: the folder or its config.json is missing.
        ValueError: it is not that of a GlimpsePrune checkpoint that is supported.
    """
    path = _first(Path(folder), CONFIGS)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return GlimpseConfig.from_json(given)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def load(folder: str | Path) -> GlimpseModules:
    """The modules of a checkpoint in float32 on the CPU, in evaluation mode; their sizes are those of the tensors.

    The authors' new_modules_gp.pt is read with `weights_only=True`: it cannot run code.

    Raises:
        FileNotFoundError: the folder, its configuration or its weights are missing.
        ValueError: configuration and weights do not fit together, or are not those of GlimpsePrune.
    """
    config = read_config(folder)
    path = _first(Path(folder), (WEIGHTS, *AUTHORS_WEIGHTS))
    try:
        saved = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    tensors = {name: tensor.float() for name, tensor in _flat(saved)}
    try:
        hidden_size = tensors["le_proj.bias"].shape[0]
        heads = tensors["attn_fuser.attn_in_proj.weight"].shape[1]
        visual_width = tensors["attn_fuser.cond_in_projs.0.weight"].shape[1]
        modules = GlimpseModules(config, hidden_size, heads, visual_width)
        modules.load_state_dict(tensors)
    except KeyError as error:
        raise ValueError(f"{path} has no tensor {error}: it does not hold GlimpsePrune's modules") from error
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its configuration: {error}") from error
    return modules.eval()


def save(modules: GlimpseModules, folder: str | Path) -> None:
    """Write config.json and the weights, in the modules' dtype. A folder that exists keeps its other files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / f".{WEIGHTS}.new", folder / ".config.json.new"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in modules.state_dict().items()}, weights)
    config.write_text(json.dumps(modules.config.to_json(), indent=1) + "\n", encoding="utf-8")
    weights.replace(folder / WEIGHTS)
    config.replace(folder / CONFIGS[0])


def _flat(saved: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors under dotted names, of dictionaries of dictionaries."""
    for name, value in saved.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder} is no GlimpsePrune checkpoint: it has no {' or '.join(names)}. Download or train one, and give its "
        "folder"
    )
