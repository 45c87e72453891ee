"""Golden cases of the methods that choose by what the vision tower saw: `<method>_<nn>.npz`, in float64.

A runner takes the case's parameters and its arrays, every array with a batch axis, and returns what the method made of
them under the golden data's own names (`kept`, and for merging methods `tokens` and the like). To add a method, write
its runner and put it into `RUNNERS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from experiments.conformance import video
from experiments.conformance.outcome import Case, MalformedGolden, Outcome, first_difference, read_npz
from pruning.choosing.coverage import greedy_coverage
from pruning.choosing.selection import max_min_diversity
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.methods.cdpruner import clip_relevance, conditional_dpp
from pruning.methods.divprune import DivPrune
from pruning.methods.fastervlm import FasterVLM
from pruning.methods.hiprune import HiPrune
from pruning.methods.holov import HoloV
from pruning.methods.mmtok import both_reaches
from pruning.methods.prumerge import PruMerge
from pruning.methods.prumerge_plus import PruMergePlus
from pruning.methods.prunesid import PruneSID
from pruning.methods.scope import Scope
from pruning.methods.visionzip import VisionZip
from pruning.methods.vispruner import VisPruner
from pruning.methods.vscan import TwoScans, Windows, join
from pruning.models.projections import Projections

TOLERANCE = 1e-9

Runner = Callable[[Case, Case], dict[str, Tensor]]


class Given(Observed):
    """What a method sees, given as arrays under `Observed`'s names instead of worked out from a model's run."""

    def __init__(self, num_visual: int, **arrays: Tensor) -> None:
        batch = next(iter(arrays.values())).shape[0]
        # They take the place of cached properties, which is where those would keep their values too.
        self.__dict__.update(
            {"projects_alone": True, "repacks": True, **arrays}, slots_BN=torch.arange(num_visual).expand(batch, -1)
        )

    def project(self, merged_BTC: Tensor) -> Tensor:
        """The golden tokens of merging methods are those in front of the projector."""
        return merged_BTC


def _behind_cls(arrays: Case, **further: Tensor) -> Given:
    """What is seen where the golden hidden states have [CLS] in front of the patches."""
    hidden = arrays["hidden"]
    return Given(
        hidden.shape[1] - 1,
        cls_attention_BHN=arrays["cls_attention"],
        cls_features_BC=hidden[:, 0],
        features_BNC=hidden[:, 1:],
        projected_BND=hidden[:, 1:],
        **further,
    )


def vispruner(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = VisPruner(keep=params["keep"], important_ratio=params["important_ratio"])
    attention, features = arrays["cls_attention"], arrays["features"]
    seen = Given(features.shape[1], cls_attention_BHN=attention, features_BNC=features)
    return {"kept": method.select(seen)}


def fastervlm(params: Case, arrays: Case) -> dict[str, Tensor]:
    attention = arrays["cls_attention"]
    return {"kept": FasterVLM(keep=params["keep"]).select(Given(attention.shape[2], cls_attention_BHN=attention))}


def divprune(params: Case, arrays: Case) -> dict[str, Tensor]:
    tokens = arrays["visual_embeds"]
    method = DivPrune(ratio=params["ratio"])
    picks = max_min_diversity(tokens, method.count(tokens.shape[1]))
    return {"kept": method.select(Given(tokens.shape[1], projected_BND=tokens)), "pick_order": picks}


def cdpruner(params: Case, arrays: Case) -> dict[str, Tensor]:
    relevance = clip_relevance(arrays["clip_image_embeds"], arrays["clip_text_embeds"])
    return {"kept": conditional_dpp(arrays["projected"], relevance, params["keep"])}


def visionzip(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = VisionZip(dominant=params["dominant"], contextual=params["contextual"])
    merged = method.select(_behind_cls(arrays, head_keys_BNC=arrays["keys"][:, 1:]))
    return {"kept": merged.numbers_BT[:, 1 : params["dominant"]], "tokens": merged.tokens_BTD}


def prumerge(params: Case, arrays: Case) -> dict[str, Tensor]:
    method_class = {"prumerge": PruMerge, "prumerge_plus": PruMergePlus}[params["method"]]
    ratio = None if params["adaptive"] else params["ratio"]
    hidden, keys = arrays["hidden"], arrays["keys"]
    one_head = Projections(arrays["queries"], keys, None, head_dim=keys.shape[2])
    seen = Given(
        hidden.shape[1] - 1,
        wide_attention_BN=one_head.cls_row()[:, 0],
        wide_keys_BNC=keys[:, 1:],
        features_BNC=hidden[:, 1:],
    )
    merged = method_class(ratio=ratio, neighbours=params["neighbours"]).select(seen)
    index = merged.numbers_BT[:, :-1]
    return {"token_index": index, "kept": index.sort(dim=1).values, "tokens": merged.tokens_BTD}


def scope(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = Scope(keep=params["keep"], alpha=params["alpha"])
    attention, features = arrays["cls_attention"], arrays["features"]
    seen = Given(features.shape[1], cls_attention_BHN=attention, features_BNC=features)
    return {"kept": method.select(seen), "pick_order": method.picks(seen)}


def holov(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = HoloV(keep=params["keep"], crops=params["crops"], beta=params["beta"])
    attention, projected = arrays["cls_attention"], arrays["projected"]
    seen = Given(projected.shape[1], cls_attention_BHN=attention, projected_BND=projected)
    in_order = replace(method, order="crops", overflow="zeros").select(seen)
    assert isinstance(in_order, MergedTokens)
    kept = method.select(seen)
    assert isinstance(kept, Tensor)
    return {"kept": kept, "token_index": in_order.numbers_BT}


def mmtok(params: Case, arrays: Case) -> dict[str, Tensor]:
    features, words = arrays["features"], arrays["text_embeds"]
    temperatures = params["text_temperature"], params["vision_temperature"]
    there_BM = torch.ones(words.shape[:2], dtype=torch.bool)
    reach = both_reaches(words, there_BM, arrays["projected"], features, *temperatures, params["alpha"])
    barred_BN = torch.zeros(features.shape[:2], dtype=torch.bool)
    if "padding" in arrays:
        barred_BN = barred_BN.scatter(1, arrays["padding"], True)
    picks = greedy_coverage(reach, params["keep"], barred_BN=barred_BN)
    return {"kept": picks.sort(dim=1).values, "pick_order": picks}


def prunesid(params: Case, arrays: Case) -> dict[str, Tensor]:
    index = PruneSID(keep=params["keep"], pca=params["pca"]).select(_behind_cls(arrays)).numbers_BT[:, 1:]
    return {"token_index": index, "kept": index.sort(dim=1).values}


def hiprune(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = HiPrune(keep=params["keep"], alpha=params["alpha"], wrap=True)
    return {"kept": method.choose(arrays["received_middle"], arrays["received_deep"], (1, *params["grid"]))}


def vscan(params: Case, arrays: Case) -> dict[str, Tensor]:
    tokens, device = arrays["projected"], torch.device("cpu")
    if params["variant"] == "llava":
        method = TwoScans(params["keep"], params["local_share"], exact=False)
        scores = (arrays[f"cls_attention_{where}"].mean(dim=1) for where in ("local", "global"))
        side = round(tokens.shape[1] ** 0.5)
        kept = method.by_window(*scores, Windows(params["window"], 1, side, side, device))
    else:
        rows, columns = arrays["grid"][0].tolist()
        windows = Windows(params["window"], 1, rows, columns, device)
        kept = TwoScans(params["keep"]).by_order(arrays["received_local"], arrays["received_global"], windows)
    return {"kept": kept, "tokens": join(tokens, kept)[0]}


RUNNERS: dict[str, Runner] = {
    "vispruner": vispruner,
    "fastervlm": fastervlm,
    "cdpruner": cdpruner,
    "divprune": divprune,
    "visionzip": visionzip,
    "prumerge": prumerge,
    "prumerge_plus": prumerge,
    "scope": scope,
    "holov": holov,
    "mmtok": mmtok,
    "prunesid": prunesid,
    "hiprune": hiprune,
    "vscan": vscan,
    **video.RUNNERS,
}

# Shared by all images of a batch, hence never given a batch axis.
SHARED = {"clip_text_embeds"}


def run(folder: Path) -> Iterator[Outcome]:
    """Every case of the folder, in the order of the file names.

    Raises:
        MalformedGolden: a file is unreadable or lacks what its method needs.
    """
    for path in sorted(folder.glob("*.npz")):
        arrays = read_npz(path)
        params = arrays.part("params")
        method = params["method"]
        if method not in RUNNERS:
            yield Outcome(path.stem, method, "unsupported")
            continue
        difference = _difference(RUNNERS[method], params, arrays)
        yield Outcome(path.stem, method, "differ" if difference else "agree", difference)


def _difference(runner: Runner, params: Case, arrays: Case) -> str:
    golden_kept = arrays["kept"]
    single = golden_kept.ndim == 1
    batched = {
        name: array[None] if single and name not in SHARED else array
        for name, array in arrays.items()
        if name != "params"
    }
    try:
        outputs = runner(params, Case(arrays.source, batched))
    except MalformedGolden:
        raise
    except Exception as error:  # a method that fails on a case disagrees with it; the other cases still run
        return f"raised {type(error).__name__}: {error}"
    for name, ours in outputs.items():
        golden = arrays[name][None] if single else arrays[name]
        if difference := first_difference(name, ours, golden, TOLERANCE):
            return difference
    return ""
