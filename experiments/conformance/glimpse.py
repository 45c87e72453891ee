"""Golden cases of GlimpsePrune, the learned method: its predictor, rules, box masks and losses, and whole runs.

Predictor and losses are compared to 1e-5, whole runs in float32 to 1e-4; indices, masks and tokens exactly.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from experiments.conformance.outcome import Case, MalformedGolden, Outcome, first_difference, read_npz
from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.losses import box_mask, predictor_losses
from pruning.glimpse.method import GlimpsePrune
from pruning.glimpse.predictor import ImportancePredictor, raster_positions

TOLERANCE, RUN_TOLERANCE = 1e-5, 1e-4
PREFIX = "attn_fuser."
Runner = Callable[[Path, Case], str]


def predictor(path: Path, arrays: Case) -> str:
    params = arrays.part("params")
    config = GlimpseConfig(
        reduce_layer=0,
        glimpse_layers=1,
        selected_visual_layers=tuple(range(params["num_layers"])),
        use_attention_logits=True,
        attn_fuse_size=params["fuse_size"],
        visual_cond_size=params["cond_size"],
        attn_fuse_num_heads=params["num_heads"],
    )
    net = ImportancePredictor(config, params["heads_in"], params["visual_size"])
    weights = _read_weights(path.with_suffix(".safetensors"))
    net.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})
    grids = [(rows, columns) for rows, columns in arrays["grid"].tolist()]
    logits_N = net(
        arrays["attention"].float(),
        arrays["conditions"].float(),
        raster_positions(grids),
        [rows * columns for rows, columns in grids],
    )
    return first_difference("logits_fp32", logits_N, arrays["logits_fp32"], TOLERANCE) or first_difference(
        "logits", logits_N, arrays["logits"], TOLERANCE
    )


def selection(path: Path, arrays: Case) -> str:
    sizes = [size for size in arrays["tokens_per_sample"].tolist() if size > 0]
    kept_N = GlimpsePrune(**arrays.part("params")).keep(arrays["logits"], sizes)
    return first_difference("kept", kept_N, arrays["kept"], 0)


def boxes(path: Path, arrays: Case) -> str:
    rows, columns = arrays["grid"].tolist()
    return first_difference("mask", box_mask(arrays["boxes"].tolist(), rows, columns), arrays["mask"], 0)


def losses(path: Path, arrays: Case) -> str:
    params, sizes = arrays.part("params"), arrays["tokens_per_sample"].tolist()
    dice, bce = predictor_losses(arrays["logits"].float(), arrays["target"], sizes, params["epsilon"])
    total = params["dice_weight"] * dice + params["bce_weight"] * bce
    return (
        first_difference("dice", dice, arrays["dice"], TOLERANCE)
        or first_difference("bce", bce, arrays["bce"], TOLERANCE)
        or first_difference("total", total, arrays["total"], TOLERANCE)
    )


@torch.inference_mode()
def whole_run(path: Path, arrays: Case) -> str:
    """A prefill and a greedy continuation of the model beside the case."""
    try:
        model = AutoModelForImageTextToText.from_pretrained(path.parent / "model", dtype=torch.float32).eval()
        method = GlimpsePrune.from_pretrained(path.parent, **arrays.part("params"))
    except Exception as error:  # safetensors, json and transformers each raise their own
        raise MalformedGolden(f"{path.parent}: cannot be loaded ({type(error).__name__}: {error})") from error
    ids_BL, expected = arrays["input_ids"], arrays["new_tokens"]
    inputs = {
        "input_ids": ids_BL,
        "attention_mask": arrays["attention_mask"],
        "pixel_values": arrays["pixel_values"].float(),
        "image_grid_thw": arrays["image_grid_thw"],
        "mm_token_type_ids": (ids_BL == model.config.image_token_id).int(),
    }
    logits: list[Tensor] = []
    positions: list[Tensor] = []
    handles = [
        method.loaded.attn_fuser.register_forward_hook(lambda module, args, output: logits.append(output)),
        model.model.language_model.rotary_emb.register_forward_hook(
            lambda module, args, output: positions.append(args[1])
        ),
    ]
    with method(model) as record:
        last_BV = model(**inputs).logits[:, -1]
    for handle in handles:
        handle.remove()
    with method(model):
        generated = model.generate(
            **inputs,
            max_new_tokens=expected.shape[1],
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    rows = range(len(ids_BL))
    golden_logits_N = torch.cat([arrays[f"vip_logits_{row}"] for row in rows])
    # Padding has any position: only those of the tokens that are there say something.
    present_BS = arrays["pruned_attention_mask"].bool()
    return (
        first_difference("vip_logits", logits[0], golden_logits_N, RUN_TOLERANCE)
        or "".join(first_difference(f"kept_{row}", record.kept[row][-1], arrays[f"kept_{row}"], 0) for row in rows)
        or first_difference(
            "pruned_position_ids",
            positions[-1].masked_fill(~present_BS, 0),
            arrays["pruned_position_ids"].masked_fill(~present_BS, 0),
            0,
        )
        or first_difference("last_logits", last_BV, arrays["last_logits"], RUN_TOLERANCE)
        or first_difference("step_logits", torch.stack(generated.logits), arrays["step_logits"], RUN_TOLERANCE)
        or first_difference("new_tokens", generated.sequences[:, ids_BL.shape[1] :], expected, 0)
    )


RUNNERS: dict[str, Runner] = {
    "vip": predictor,
    "selection": selection,
    "boxes": boxes,
    "losses": losses,
    "case": whole_run,
}


def recognises(folder: Path) -> bool:
    """Whether the folder looks like the glimpse/ part of the golden data."""
    return bool(_files(folder))


def run(folder: Path) -> Iterator[Outcome]:
    """Every case of the folder.

    Raises:
        MalformedGolden: a file is unreadable or lacks what it needs.
    """
    for path in _files(folder):
        arrays = read_npz(path)
        arrays.part("params")
        try:
            difference = RUNNERS[path.stem.split("_")[0]](path, arrays)
        except MalformedGolden:
            raise
        except Exception as error:  # a method that fails on a case disagrees with it; the other cases still run
            difference = f"raised {type(error).__name__}: {error}"
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield Outcome(name, "glimpse", "differ" if difference else "agree", difference)


def _files(folder: Path) -> list[Path]:
    flat = [path for kind in RUNNERS if kind != "case" for path in sorted(folder.glob(f"{kind}_*.npz"))]
    return flat + sorted(folder.glob("e2e/case_*.npz"))


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # a missing or damaged file
        raise MalformedGolden(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
