"""Golden cases of the methods that prune videos; the runners work as those of `experiments.conformance.vision`."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from experiments.conformance.outcome import Case
from pruning.choosing.selection import stable_top_k
from pruning.methods.evs import EVS, changes
from pruning.methods.fastvid import FastVID
from pruning.methods.flashvid import FlashVID
from pruning.methods.vcast import VCast
from pruning.methods.vidcom2 import VidCom2


def _own(method: type, params: Case, **renamed: str) -> Any:
    """The method with those of the case's parameters that it has."""
    names = {one.name for one in fields(method)}
    given = {renamed.get(name, name): value for name, value in params.items()}
    return method(**{name: value for name, value in given.items() if name in names})


def _of_mask(kept_BFM: Tensor) -> dict[str, Tensor]:
    kept_BN = kept_BFM.flatten(1)
    return {"kept": stable_top_k(kept_BN.double(), int(kept_BN.sum())), "frame_counts": kept_BFM.sum(dim=2)}


def vidcom2(params: Case, arrays: Case) -> dict[str, Tensor]:
    return _of_mask(_own(VidCom2, params).choose(arrays["tokens_in"])[0])


def vcast(params: Case, arrays: Case) -> dict[str, Tensor]:
    return _of_mask(_own(VCast, params).choose(arrays["tokens_in"])[0])


def evs(params: Case, arrays: Case) -> dict[str, Tensor]:
    tokens = arrays["tokens_in"].flatten(2, 3)
    count = tokens.shape[1] * tokens.shape[2]
    keep = max(tokens.shape[2], EVS(rate=params["rate"]).count(count))
    return {"kept": stable_top_k(changes(tokens), keep)}


def fastvid(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = _own(FastVID, params, retention_ratio="ratio")
    inputs = (arrays[name][0] for name in ("tokens_in", "frame_attention", "frame_features"))
    return _of_merged(*method.merge(*inputs))


def flashvid(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = _own(FlashVID, params, retention_ratio="ratio")
    return _of_merged(*method.before.merge(arrays["tokens_in"][0], arrays["frame_attention"][0]))


def _of_merged(left: tuple[Tensor, Tensor, Tensor], lengths: list[int]) -> dict[str, Tensor]:
    return {"kept": left[0][None], "tokens": left[1][None], "segment_sizes": torch.tensor([lengths])}


RUNNERS = {"vidcom2": vidcom2, "vcast": vcast, "evs": evs, "fastvid": fastvid, "flashvid": flashvid}
