"""Whether pruning on a device is what it is on a CPU, equals masking there, and waits for the device no more often."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.gpu.masking import hidden, visible
from experiments.gpu.output import Deadline, message
from experiments.gpu.subjects import Subject, given, on_device
from pruning.choosing.base import Method
from pruning.engine.record import Record
from pruning.models.families import family_of

COLUMNS = (
    "model", "dtype", "attention", "padded", "method", "keep", "jaccard_mean", "jaccard_min", "oracle",
    "oracle_difference", "logits_scale", "relative_difference", "tolerance", "within", "extra_syncs_prefill",
    "extra_syncs_token", "syncs_at", "error",
)  # fmt: skip
# Of the largest difference of a logit, over the largest logit of the batch: at least this, and in half precision twice
# what the masked model's own logits are away from those on the CPU in float32.
TOLERANCE = 1e-4
# What they make anew is in no unpruned model, so that masking says nothing about them.
MERGING = ("visionzip", "prumerge_plus", "sparsevlm")
BACKENDS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
NEW = {"do_sample": False, "num_beams": 1, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
SOURCES = str(Path(__file__).resolve().parents[2] / "pruning")


class Setting:
    """One subject on a device, in one dtype and with one attention."""

    def __init__(
        self, subject: Subject, device: torch.device, dtype: torch.dtype, attention: str, padded: bool = False
    ) -> None:
        self.subject, self.attention, self.padded, self.dtype = subject, attention, padded, dtype
        plain = "eager" if attention == "eager" else "sdpa"
        self.model = on_device(subject.model, device, dtype, plain)
        self.masked = on_device(subject.model, device, dtype, "eager")
        self.prompts = subject.prompts(padded)
        self.inputs = given(self.prompts, self.model)
        self.methods = subject.methods(self.model)

    def kernel(self) -> AbstractContextManager[Any]:
        backend = BACKENDS.get(self.attention)
        return nullcontext() if backend is None else sdpa_kernel([backend])

    def rows(self, deadline: Deadline, reference: dict[str, list[list[set[int]]]]) -> Iterator[dict[str, Any]]:
        """One for each method, until the time is over."""
        plain = self._syncs(nullcontext)
        for name, method in self.methods.items():
            if deadline.over:
                return
            row: dict[str, Any] = {
                "model": self.subject.name, "dtype": str(self.dtype).removeprefix("torch."),
                "attention": self.attention, "padded": self.padded, "method": name,
            }  # fmt: skip
            try:
                row |= self._against_masking(name, method, reference.get(name))
                row |= self._extra_syncs(method, plain)
            except Exception as error:  # whatever happens on an unknown device, the other rows are to be measured
                row["error"] = message(error)
            yield row

    @torch.inference_mode()
    def _against_masking(self, name: str, method: Method, kept: list[list[set[int]]] | None) -> dict[str, Any]:
        with self.kernel(), method(self.model) as record:
            pruned = self.model.generate(**self.inputs, **NEW, max_new_tokens=3, min_new_tokens=3)
        row: dict[str, Any] = {"keep": record.visual_tokens[0][-1]}
        if kept is not None:
            row |= agreement(kept_sets(record), kept)
        if name in MERGING:
            return row | {"oracle": "merges"}
        expected = masked(self.masked, self.inputs, method, record)
        difference, scale = deviation(pruned, expected)
        tolerance = TOLERANCE
        if self.dtype != torch.float32:
            rounding, _ = deviation(expected, masked(self.subject.exact, self.prompts, method, record))
            tolerance = max(tolerance, 2 * rounding / scale)
        return row | {
            "oracle": "masked",
            "oracle_difference": difference,
            "logits_scale": scale,
            "relative_difference": difference / scale,
            "tolerance": tolerance,
            "within": difference / scale <= tolerance,
        }

    def _extra_syncs(self, method: Method, plain: list[Counter[str] | None]) -> dict[str, Any]:
        found = self._syncs(lambda: method(self.model))
        if plain[0] is None or plain[1] is None or found[0] is None or found[1] is None:
            return {}
        first, plain_first = found[0].total(), plain[0].total()
        later, plain_later = found[1].total() - first, plain[1].total() - plain_first
        places = {place: count for place, count in found[1].items() if place.startswith("pruning")}
        return {
            "extra_syncs_prefill": first - plain_first,
            "extra_syncs_token": (later - plain_later) / 2,
            "syncs_at": " ".join(f"{place}x{count}" for place, count in sorted(places.items())),
        }

    @torch.inference_mode()
    def _syncs(self, context: Callable[[], AbstractContextManager[Any]]) -> list[Counter[str] | None]:
        """Of a generation of one token, and of three."""
        return [
            synchronisations(self.model, context, self.inputs, {**NEW, "max_new_tokens": new, "min_new_tokens": new})
            for new in (1, 3)
        ]


def masked(model: Any, inputs: dict[str, Tensor], method: Method, record: Record) -> Any:
    """Three tokens of the unpruned model in eager attention, from which the tokens are hidden that the method drops."""
    family = family_of(model)
    before, inside = method.parts()
    given = dict(inputs)
    if before is not None and before.repacks(family):
        positions = visible(model, inputs, record, 0).cumsum(dim=1) - 1
        given["position_ids"] = positions.clamp(min=0)
    again = inside is not None and inside.repacks(family)
    earlier = inside is not None and inside.prune_earlier_caches
    last = len(family.layers) - 1 if earlier else None
    with hidden(model, inputs, record, decode_from=last, repacked=again):
        return model.generate(**given, **NEW, max_new_tokens=3, min_new_tokens=3)


def synchronisations(
    model: Any, context: Callable[[], AbstractContextManager[Any]], inputs: dict[str, Tensor], options: dict[str, Any]
) -> Counter[str] | None:
    """How often the host waited for the device, by place; None on a CPU, for which nobody waits."""
    if model.device.type != "cuda":
        with context():
            model.generate(**inputs, **options)
        return None
    with context(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _sync_warnings():
            model.generate(**inputs, **options)
    waits = [one for one in caught if "called a synchronizing" in str(one.message)]
    return Counter(f"{_short(one.filename)}:{one.lineno}" for one in waits)


@contextmanager
def _sync_warnings() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _short(path: str) -> str:
    return f"pruning{path.removeprefix(SOURCES)}" if path.startswith(SOURCES) else Path(path).name


@torch.inference_mode()
def references(subject: Subject, padded: bool = False) -> dict[str, list[list[set[int]]]]:
    """What every method keeps on the CPU in float32."""
    prompts, found = subject.prompts(padded), {}
    for name, method in subject.methods(subject.model).items():
        with method(subject.model) as record:
            subject.model(**prompts, use_cache=True, logits_to_keep=1)
        found[name] = kept_sets(record)
    return found


def kept_sets(record: Record) -> list[list[set[int]]]:
    """Numbers of the visual tokens by sample and layer; merged ones have theirs."""
    return [[set(kept_N.tolist()) for kept_N in layers] for layers in record.kept]


def agreement(ours: list[list[set[int]]], theirs: list[list[set[int]]]) -> dict[str, float]:
    """Jaccard index of what enters the layers, mean and least over samples and layers."""
    values = [
        len(one & other) / len(one | other) if one | other else 1.0
        for sample, expected in zip(ours, theirs, strict=True)
        for one, other in zip(sample, expected, strict=True)
    ]
    return {"jaccard_mean": sum(values) / len(values), "jaccard_min": min(values)}


def deviation(ours: Any, theirs: Any) -> tuple[float, float]:
    """Largest difference of the logits and the largest logit, as long as the tokens in front are the same.

    Raises:
        ValueError: a logit is not finite.
    """
    logits_TBV, other_TBV = (torch.stack(one.logits).float().cpu() for one in (ours, theirs))
    new = len(logits_TBV)
    same_BT = ours.sequences[:, -new:].cpu() == theirs.sequences[:, -new:].cpu()
    # The logits of a token depend on those in front of it only.
    alike_TB = torch.cat([torch.ones_like(same_BT[:, :1]), same_BT[:, :-1]], dim=1).cumprod(dim=1).bool().T
    if not bool(logits_TBV.isfinite().all()):
        raise ValueError("the logits are not finite")
    difference = (logits_TBV - other_TBV)[alike_TB].abs().max()
    return float(difference), float(other_TBV[alike_TB].abs().max())
