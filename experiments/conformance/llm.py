"""Golden cases of the methods that prune inside the language model: `cases.json` beside tiny models, in float32.

The method runs through the engine on the golden model as any user would run it; kept sets and counts are compared
exactly, logits to 1e-4. To add a method, say in `METHODS` how a case's parameters become the method.
"""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

import pruning
from experiments.conformance.outcome import Case, MalformedGolden, Outcome, first_difference, read_npz
from pruning.choosing.base import Method
from pruning.engine.record import Record

TOLERANCE = 1e-4


def sequential_prune(params: Case, variant: str, mode: str) -> Method:
    return pruning.make("sequential_prune", k=params["K"], r=params["R"], step=params["step"], mode=mode)


def fastv(params: Case, variant: str, mode: str) -> Method:
    return pruning.make("fastv", k=params["K"], r=params["R"], rounding=variant, mode=mode)


def pyramiddrop(params: Case, variant: str, mode: str) -> Method:
    return pruning.make("pyramiddrop", layers=params["layers"], ratios=params["ratios"], mode=mode)


def sparsevlm(params: Case, variant: str, mode: str) -> Method:
    return pruning.make("sparsevlm", version=variant, layers=params["layers"], table=params["table"], mode=mode)


def dart(params: Case, variant: str, mode: str) -> Method:
    return pruning.make(
        "dart",
        k=params["K"],
        max_tokens=params["max_tokens"],
        visual_pivots=params["image_pivots"],
        text_pivots=params["text_pivots"],
        order=variant,
        mode=mode,
    )


def vtw(params: Case, variant: str, mode: str) -> Method:
    return pruning.make("vtw", k=params["k"], mode=mode)


# Parameters, variant and greedy mode of a case -> the method.
METHODS: dict[str, Callable[[Case, str, str], Method]] = {
    "sequential_prune": sequential_prune,
    "fastv": fastv,
    "pyramiddrop": pyramiddrop,
    "sparsevlm": sparsevlm,
    "dart": dart,
    "vtw": vtw,
}


def run(folder: Path) -> Iterator[Outcome]:
    """Every case of the folder, in the order of cases.json.

    Raises:
        MalformedGolden: cases.json, a model, inputs or logits are missing or unreadable.
    """
    for number, fields in enumerate(_read_cases(folder / "cases.json")):
        case = Case(f"{folder / 'cases.json'}, case {number}", fields)
        name, method = case["id"], case["method"]
        if method not in METHODS:
            yield Outcome(name, method, "unsupported")
            continue
        difference = _difference(folder, case)
        yield Outcome(name, method, "differ" if difference else "agree", difference)


def _read_cases(path: Path) -> list[dict]:
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MalformedGolden(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise MalformedGolden(f"{path}: should be a list of cases, each a JSON object")
    return cases


@lru_cache(maxsize=1)  # cases on the same model stand together
def _load_model(folder: Path) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise MalformedGolden(f"{folder}: there is no model (config.json and model.safetensors)")
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # safetensors, json and transformers each raise their own
        raise MalformedGolden(f"{folder}: the model cannot be loaded ({type(error).__name__}: {error})") from error
    return model.eval()


def _difference(folder: Path, case: Case) -> str:
    expected = case.part("expected")
    params, variant, mode = case.part("params"), case["variant"], expected["greedy_mode"]
    inputs = read_npz(folder / case["inputs"])
    logits = read_npz(folder / expected["last_logits_file"])
    ids_1S, pixels = inputs["input_ids"], inputs["pixel_values"]
    comparison = _Comparison(_load_model(folder / case["model"]), ids_1S, pixels, case["num_visual"], expected, logits)
    try:
        method = METHODS[case["method"]](params, variant, mode)
        with torch.inference_mode():
            return comparison.prefill(method) or comparison.decode(method, mode)
    except MalformedGolden:
        raise
    except Exception as error:  # a method that fails on a case disagrees with it; the other cases still run
        return f"raised {type(error).__name__}: {error}"


class _Comparison:
    """One case on its model: what prefill kept and computed, and then the greedy continuation."""

    def __init__(
        self,
        model: PreTrainedModel,
        ids_1S: Tensor,
        pixels: Tensor,
        num_visual: int,
        expected: Case,
        logits: Case,
    ) -> None:
        self.model, self.ids_1S, self.pixels, self.num_visual = model, ids_1S, pixels, num_visual
        self.expected, self.logits = expected, logits
        self.greedy = torch.tensor(expected["greedy"])

    def prefill(self, method: Method) -> str:
        ours, record = self._forward(method, [], use_cache=True)
        counts = self.expected["visual_tokens_per_layer"]
        formula = method.visual_tokens_per_layer(self.num_visual, len(counts))
        return (
            self._kept_differ(record)
            or self._merged_differ(record)
            or first_difference(
                "visual_tokens_per_layer", torch.tensor(record.visual_tokens[0]), torch.tensor(counts), 0
            )
            or first_difference("visual_tokens_per_layer by formula", torch.tensor(formula), torch.tensor(counts), 0)
            or first_difference("logits", ours, self.logits["logits"], TOLERANCE)
        )

    def decode(self, method: Method, mode: str) -> str:
        with method(self.model):
            generated = self.model.generate(
                **self._inputs([]),
                max_new_tokens=len(self.greedy),
                do_sample=False,
                use_cache=mode == "static",
                output_logits=True,
                return_dict_in_generate=True,
            )
        steps = torch.cat(generated.logits)
        new_tokens = generated.sequences[0, self.ids_1S.shape[1] :]
        difference = first_difference("step_logits", steps, self.logits["step_logits"], TOLERANCE) or first_difference(
            "greedy", new_tokens, self.greedy, 0
        )
        if difference or mode == "static":
            return difference
        return self._repeated_differ(method)

    def _repeated_differ(self, method: Method) -> str:
        """Each step from scratch: the record speaks of one prefill, so each step is its own."""
        for step, golden in enumerate(self.expected["repeat_last_kept"]):
            ours, record = self._forward(method, self.greedy[:step].tolist(), use_cache=False)
            difference = _sets_differ(f"repeat_last_kept[{step}]", record.kept[0][-1], golden) or first_difference(
                f"step_logits[{step}] from scratch", ours, self.logits["step_logits"][step], TOLERANCE
            )
            if difference:
                return difference
        return ""

    def _forward(self, method: Method, new_tokens: list[int], use_cache: bool) -> tuple[Tensor, Record]:
        with method(self.model) as record:
            output = self.model(**self._inputs(new_tokens), use_cache=use_cache)
        return output.logits[0, -1], record

    def _inputs(self, new_tokens: list[int]) -> dict[str, Tensor]:
        ids_1S = torch.cat([self.ids_1S, torch.tensor([new_tokens], dtype=torch.int64)], dim=1)
        return {"input_ids": ids_1S, "attention_mask": torch.ones_like(ids_1S), "pixel_values": self.pixels}

    def _kept_differ(self, record: Record) -> str:
        golden: list[int] = list(range(self.num_visual))
        listed = self.expected["kept"]
        for layer, ours in enumerate(record.kept[0]):
            golden = listed.get(str(layer), golden)
            if difference := _sets_differ(f"layer {layer}", ours, golden):
                return difference
        return ""

    def _merged_differ(self, record: Record) -> str:
        if "merged_members" not in self.expected:
            return ""
        stages = self.expected.part("merged_members")
        golden = [sorted(members) for layer in sorted(stages, key=int) for members in stages[layer]]
        ours = [sorted(members) for _, members in sorted(record.merged[0].items())]
        return "" if ours == golden else f"merged_members: {ours}, golden {golden}"


def _sets_differ(name: str, ours: Tensor, golden: list[int]) -> str:
    kept = ours.tolist()
    if kept == golden:
        return ""
    missing, extra = sorted(set(golden) - set(kept)), sorted(set(kept) - set(golden))
    if not missing and not extra:
        return f"{name}: the same tokens in another order"
    return f"{name}: {len(kept)} kept, golden {len(golden)}; missing {missing[:5]}, extra {extra[:5]}"
