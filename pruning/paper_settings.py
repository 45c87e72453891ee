"""Settings for LLaVA-1.5 7B and 13B (576 visual tokens) by number of tokens: the authors' own, where they publish one.
For Qwen2.5-VL 7B, whose images and videos are of any size, by share of the visual tokens.

    pruning.paper("visionzip", model="llava-1.5-7b", tokens=64)    # VisionZip(dominant=54, contextual=10)
    pruning.paper("vidcom2", model="qwen2.5-vl-7b", share=0.25)    # VidCom2(ratio=0.25)
    pruning.paper("vscan", model="qwen2.5-vl-7b", share=0.111, num_visual=1024)    # VScan(keep=171, share=0.333, ...)

Papers count in different ways, and `PaperSetting.counted` says how; the budget of this project, the mean over the
decoder layers' inputs, is the same number only for methods that prune before the language model. A setting is `solved`
where the authors publish none for a number: its remaining parameter is then ours, for that mean. It is `assumed` where
it follows from the method, but was not found in what its authors publish for that model and number.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pruning import registry
from pruning.choosing.base import Method

NUM_VISUAL = 576
LAYERS = {"llava-1.5-7b": 32, "llava-1.5-13b": 40}
SMALL, LARGE = LAYERS
QWEN = "qwen2.5-vl-7b"

Counted = Literal["entering", "final", "after layers", "mean", "by the image"]


@dataclass(frozen=True)
class PaperSetting:
    """One setting.

    Attributes:
        parameters: of the method; where `solved`, without the one that the mean decides.
        counted: what the number of tokens stands for. "entering": tokens that enter the language model. "final": those
            in its last layer. "after layers": the mean over the layers' outputs. "mean": over the layers' inputs,
            rounded. "by the image": the mean over the authors' benchmarks of what each image decided.
        source: where it comes from.
        extra: tokens that come on top of the number.
        solved: whether the parameter behind the number is ours.
        assumed: whether it is ours to take this setting at this number, or on this model.
    """

    parameters: dict[str, Any]
    counted: Counted
    source: str
    extra: int = 0
    solved: bool = False
    assumed: bool = False


def _same(
    counts: tuple[int, ...], parameters: dict[str, Any], source: str, assumed: bool = False
) -> dict[int, PaperSetting]:
    return {count: PaperSetting({**parameters, "keep": count}, "entering", source, assumed=assumed) for count in counts}


def _solved(counts: tuple[int, ...], parameters: dict[str, Any]) -> dict[int, PaperSetting]:
    source = "solved here for this mean; the authors publish none by number of tokens"
    return {count: PaperSetting(parameters, "mean", source, solved=True) for count in counts}


_FOUR = (192, 128, 64, 32)
_ONLY = "the number is the method's only parameter"
_VISPRUNER = _same(_FOUR, {"important_ratio": 0.5}, "authors' default important_ratio")
_FASTERVLM = _same(_FOUR, {}, _ONLY, assumed=True)
_CDPRUNER = _same(_FOUR, {}, f"{_ONLY}; pass clip= for the authors' relevance", assumed=True)
_DIVPRUNE = {
    count: PaperSetting({"ratio": count / NUM_VISUAL}, "entering", "this share of 576", assumed=True) for count in _FOUR
}
_VISIONZIP = {
    dominant + contextual: PaperSetting(
        {"dominant": dominant, "contextual": contextual}, "entering", "authors' settings; [CLS] is a dominant token"
    )
    for dominant, contextual in ((162, 30), (108, 20), (54, 10), (27, 5))
}
# What the adaptive variants leave on average, from 7B and 13B's common vision tower.
_PRUMERGE = {32: PaperSetting({}, "by the image", "the paper's abstract, version 2: 18 times fewer tokens on average")}
_PRUMERGE_PLUS = {144: PaperSetting({}, "by the image", "the paper's abstract, version 6: 4 times fewer tokens")} | {
    count: PaperSetting(
        {"ratio": 1 / part}, "entering", f"fixed variant of the authors' code at ratio 1/{part}", extra=1, assumed=True
    )
    for count, part in zip(_FOUR, (6, 9, 18, 36), strict=True)
}
_SPARSEVLM = {
    count: PaperSetting({"target": count}, "after layers", 'tables of the authors\' code; version="v2" for the second')
    for count in (192, 128, 96, 64)
}
_DART = {
    count: PaperSetting(
        {"k": 2, "max_tokens": count},
        "final",
        "authors' K=2, at 128 as they run it; four visual pivots on top",
        extra=4,
        assumed=count != 128,
    )
    for count in (192, 128, 64)
}
_THREE = (192, 128, 64)
_KEEP = "authors' scripts: the number is all that they give"
_OTHER = "as on 7B, whose vision tower it has"


def _both(parameters: dict[str, Any], source: str) -> dict[str, dict[int, PaperSetting]]:
    """For 7B the authors' own, for 13B taken over."""
    large = _same(_THREE, parameters, f"{source}; {_OTHER}", assumed=True)
    return {SMALL: _same(_THREE, parameters, source), LARGE: large}


_CROPS = "authors' constants in the source: 16 crops at 64 tokens"
_HOLOV = _same((64,), {}, _CROPS) | _same(
    (192, 128), {}, f"{_CROPS}, elsewhere by their formula for Qwen", assumed=True
)
_VSCAN = {
    64: PaperSetting({"keep": 96, "layer": 16}, "mean", "authors' options: 96 tokens, 32 of them from layer 16 on")
} | {
    mean: PaperSetting({"keep": keep, "layer": 16}, "mean", "the shares of the authors' 96 and 32", assumed=True)
    for mean, keep in ((192, 288), (128, 192))
}
_DEMO = "authors' demos: K=2, step 10, R .5, .75 and .9"

# Method -> model -> number of tokens -> setting.
PAPER_SETTINGS: dict[str, dict[str, dict[int, PaperSetting]]] = {
    "vispruner": {SMALL: _VISPRUNER, LARGE: _VISPRUNER},
    "fastervlm": {SMALL: _FASTERVLM, LARGE: _FASTERVLM},
    "cdpruner": {SMALL: _CDPRUNER, LARGE: _CDPRUNER},
    "divprune": {SMALL: _DIVPRUNE, LARGE: _DIVPRUNE},
    "visionzip": {SMALL: _VISIONZIP, LARGE: _VISIONZIP},
    "prumerge": {SMALL: _PRUMERGE, LARGE: _PRUMERGE},
    "prumerge_plus": {SMALL: _PRUMERGE_PLUS, LARGE: _PRUMERGE_PLUS},
    "sequential_prune": {
        SMALL: {
            count: PaperSetting({"k": 2, "step": 10, "r": r}, "mean", _DEMO)
            for count, r in ((324, 0.5), (214, 0.75), (154, 0.9))
        }
        | _solved((192, 128), {"k": 2, "step": 10})
        | _solved((64,), {"k": 2, "step": 25}),
        LARGE: {
            count: PaperSetting({"k": 2, "step": 10, "r": r}, "mean", _DEMO)
            for count, r in ((317, 0.5), (200, 0.75), (135, 0.9))
        }
        | _solved((192, 128), {"k": 2, "step": 10})
        | _solved((64,), {"k": 2, "step": 25}),
    },
    "fastv": {
        SMALL: {306: PaperSetting({"k": 2, "r": 0.5}, "mean", "the paper's title: half the tokens after layer 2")}
        | _solved((192, 128, 64), {"k": 2}),
        LARGE: {302: PaperSetting({"k": 2, "r": 0.5}, "mean", "the paper's title: half the tokens after layer 2")}
        | _solved(_FOUR, {"k": 2}),
    },
    # The solved ones start where FastV does, and go on at a quarter and half of the decoder.
    "pyramiddrop": {
        SMALL: {270: PaperSetting({"layers": [8, 16, 24]}, "mean", "authors' evaluation options, lambda .5")}
        | _solved((192, 128, 64), {"layers": [2, 8, 16]}),
        LARGE: {
            270: PaperSetting(
                {"layers": [10, 20, 30]}, "mean", "quarters of the decoder as on 7B, lambda .5", assumed=True
            )
        }
        | _solved(_FOUR, {"layers": [2, 10, 20]}),
    },
    "sparsevlm": {SMALL: _SPARSEVLM},
    "dart": {SMALL: _DART},
    "scope": _both({"alpha": 1.0}, _KEEP),
    "holov": {SMALL: _HOLOV, LARGE: {count: replace(preset, assumed=True) for count, preset in _HOLOV.items()}},
    "mmtok": _both({"alpha": 0.5, "text_temperature": 0.02, "vision_temperature": 0.2}, _KEEP),
    "prunesid": _both({}, f"{_KEEP}; [CLS] is one of the tokens"),
    "hiprune": _both({"alpha": 0.1}, "authors' scripts: object layer 9 and alpha .1"),
    "vscan": {SMALL: _VSCAN},
    "vtw": {SMALL: {270: PaperSetting({"k": 15}, "mean", "the authors' layer")}},
}

# Method -> share of the visual tokens on Qwen2.5-VL 7B -> its parameters, the share that enters where that is another
# one, and what the share stands for.
_ENTERING = "share of the video's tokens that enters, authors' scripts"
SHARES: dict[str, dict[float, tuple[dict[str, Any], float | None, str]]] = {
    "vscan": {0.111: ({"share": 0.333, "layer": 14}, 0.167, "mean over the layers, authors' scripts")},
    "vidcom2": {share: ({"ratio": share}, None, _ENTERING) for share in (0.25, 0.15)},
    "flashvid": {
        share: ({"ratio": share, "layer": 20}, None, "mean over the layers, authors' scripts")
        for share in (0.25, 0.2, 0.15, 0.1)
    },
}


def paper_settings(method: str, model: str) -> dict[int, PaperSetting]:
    """The settings of a method on a model, by number of tokens, falling.

    Raises:
        ValueError: no such method or model, or there is none for the two; the message says what there is.
    """
    registry.get(method)
    if model not in LAYERS:
        raise ValueError(f"unknown model {model!r}. Models with settings: {', '.join(LAYERS)}")
    if method not in PAPER_SETTINGS:
        raise ValueError(f"{method} has no setting for LLaVA-1.5. Methods with settings: {', '.join(PAPER_SETTINGS)}")
    if model not in PAPER_SETTINGS[method]:
        raise ValueError(f"{method} has no setting for {model}, but for {', '.join(PAPER_SETTINGS[method])}")
    return dict(sorted(PAPER_SETTINGS[method][model].items(), reverse=True))


def paper(
    method: str,
    *,
    model: str,
    tokens: int | None = None,
    share: float | None = None,
    num_visual: int | None = None,
    **further: Any,
) -> Method:
    """A method's setting for LLaVA-1.5 at a number of visual tokens; `paper_settings` says what that counts.

    Args:
        method: a name of the registry.
        model: "llava-1.5-7b", "llava-1.5-13b" or "qwen2.5-vl-7b".
        tokens: the number that the paper names, such as 192, 128, 64 or 32; for LLaVA-1.5.
        share: for Qwen2.5-VL in its place the share of the visual tokens; `SHARES` has them and says what they count.
        num_visual: visual tokens of the image, for methods that are given the number that enters.
        further: other parameters of the method.

    Raises:
        ValueError: there is no such setting; the message names those there are.
    """
    if model == QWEN:
        return _by_share(method, share, num_visual, further)
    if tokens is None or share is not None:
        raise ValueError(f"{model} has settings by number of tokens: give tokens, not share")
    found = paper_settings(method, model)
    if tokens not in found:
        known = ", ".join(f"{count} ({setting.counted})" for count, setting in found.items())
        raise ValueError(f"{method} has no setting for {tokens} tokens on {model}. There are: {known}")
    setting = found[tokens]
    parameters = {**setting.parameters, **further}
    if setting.solved:
        return registry.solve(method, tokens, num_visual=NUM_VISUAL, num_layers=LAYERS[model], **parameters)
    return registry.make(method, **parameters)


def _by_share(method: str, share: float | None, num_visual: int | None, further: dict[str, Any]) -> Method:
    registry.get(method)
    known = SHARES.get(method, {})
    if not known:
        raise ValueError(f"{method} has no setting for {QWEN}. Methods with one: {', '.join(SHARES)}")
    if share not in known:
        raise ValueError(
            f"{method} has no setting for a share of {share} on {QWEN}. There are: {', '.join(map(str, known))}"
        )
    parameters, entering, _ = known[share]
    if entering is not None:
        if num_visual is None:
            raise ValueError(f"{method} is given the number of tokens that enter: give num_visual, those of the image")
        parameters = {**parameters, "keep": int(entering * num_visual)}
    return registry.make(method, **{**parameters, **further})
