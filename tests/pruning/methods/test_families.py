"""Every method on every family, batches and left padding included: what all of them promise.

The table "Methods and families" in docs/methods.md is made of what is written here, and checked against it.
"""

from functools import cache
from pathlib import Path

import pytest
import torch

import pruning
from experiments.gpu.masking import hidden, visible
from pruning.models.families import family_of
from tests.pruning.methods.entering import first_and_last, places
from tests.tiny_models import FAMILIES, IMAGE, LAYERS, take_row

PAGE = Path(__file__).parents[3] / "docs/methods.md"
PROMPTS = (1, 0, 2)
BOXES = ([[0, 0, 0.5, 0.4]], [], [[0.2, 0.1, 0.4, 0.9], [0.6, 0.6, 1, 1]])
GREEDY = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
PAIR = [{"name": "vispruner", "keep": 5}, {"name": "fastv", "k": 2, "r": 0.6}]
# Each method with parameters that fit every family's tiny images; some a second time, as a variant of theirs.
CASES = {
    "full": {},
    "random": {"keep": 5},
    "grid": {"keep": 5},
    "pool": {"keep": 5},
    "oracle": {"keep": 5},
    "vispruner": {"keep": 5},
    "fastervlm": {"keep": 5},
    "cdpruner": {"keep": 5},
    "divprune": {"keep": 5},
    "visionzip": {"dominant": 3, "contextual": 2},
    "prumerge": {"keep": 5, "neighbours": 3},
    "prumerge, adaptive": {"neighbours": 3},
    "prumerge_plus": {"keep": 5, "neighbours": 3},
    "prumerge_plus, adaptive": {"neighbours": 3},
    "tome": {"keep": 5},
    "scope": {"keep": 5},
    "holov": {"keep": 5},
    "holov, in their order": {"keep": 5, "crops": 3, "order": "crops"},
    "mmtok": {"keep": 5},
    "prunesid": {"keep": 5},
    "hiprune": {"keep": 5, "alpha": 1.0},
    "vscan": {"keep": 6, "window": 3},
    "sequential_prune": {"k": 1, "r": 0.8, "step": 20},
    "fastv": {"k": 2, "r": 0.6},
    "random_inside": {"k": 2, "r": 0.6},
    "pyramiddrop": {"layers": [1, 3, 4], "ratio": 0.6},
    "vtw": {"k": 2},
    "dart": {"k": 2, "max_tokens": 17},
    "dart, by index": {"k": 2, "max_tokens": 17, "order": "index_asc"},
    "dart, as a set": {"k": 2, "max_tokens": 17, "visual_pivots": 2, "text_pivots": 3, "order": "cpython_set"},
    "sparsevlm": {"layers": [0, 2, 3], "share": 0.6},
    "sparsevlm, v2": {"version": "v2", "layers": [0, 2], "table": [14, 7]},
    "sequence": {"methods": PAIR},
    "sequence, merging": {
        "methods": [
            {"name": "visionzip", "dominant": 4, "contextual": 2},
            {"name": "sparsevlm", "layers": [1], "share": 0.5},
        ]
    },
}
# What merges makes tokens that no masking can give: there batches, order and text are what can be checked.
MERGING = (
    "pool", "visionzip", "prumerge", "prumerge_plus", "tome", "prunesid", "vscan", "sparsevlm", "sequence, merging"
)  # fmt: skip
# What a method puts into another order cannot be had by masking either.
REORDERING = ("holov, in their order",)
DROPPING = [case for case in CASES if case not in (*MERGING, *REORDERING) and "adaptive" not in case]
# Parameters that keep all of N visual tokens, besides `keep`; and the methods that never do, with the reason.
ALL = {
    "full": lambda count: {},
    "visionzip": lambda count: {"dominant": count, "contextual": 0},
    "vscan": lambda count: {"keep": count, "share": 1.0},
    "sequential_prune": lambda count: {"k": 1, "r": 2.0**-60, "step": 100 * 2.0**-60},
    "fastv": lambda count: {"r": 0},
    "random_inside": lambda count: {"r": 0},
    "pyramiddrop": lambda count: {"ratio": 1},
    "dart": lambda count: {"max_tokens": count - 1, "visual_pivots": 1, "text_pivots": 0},
    "sequence": lambda count: {"methods": [{"name": "random", "keep": count}, {"name": "fastv", "r": 0}]},
}
NEVER_ALL = {
    "visionzip": "[CLS] takes a place",
    "prumerge": "tokens take in their neighbours",
    "prumerge_plus": "tokens take in their neighbours",
    "prunesid": "[CLS] takes a place",
    "sparsevlm": "a stage drops one at least",
    "vtw": "drops all of them",
}
# Methods that do not run on every family: what they promise is tested where they are.
ELSEWHERE = {
    **dict.fromkeys(
        ("vidcom2", "fastvid", "evs", "vcast", "flashvid"), (("qwen2_vl", "qwen2_5_vl"), "test_video_methods.py")
    ),
    "glimpse": (("llava", "qwen2_5_vl"), "../glimpse/test_method.py"),
    "oracle_inside": (("llava", "qwen2_vl", "qwen2_5_vl"), "test_oracle_inside.py"),
}
COLUMNS = {"llava": "LLaVA-1.5", "llava_next": "LLaVA-NeXT", "qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL"}
QWEN = ("qwen2_vl", "qwen2_5_vl")
BY_CLS = (
    "vispruner", "fastervlm", "visionzip", "prumerge", "prumerge_plus", "scope", "holov", "prunesid", "vscan"
)  # fmt: skip


def remark(name: str, family: str) -> str:
    """How a method runs on a family, where that is not the same on all of them."""
    if name in ELSEWHERE:
        runs = "videos" if pruning.registry.get(name).videos_only else "yes"
        return runs if family in ELSEWHERE[name][0] else "no"
    if name in BY_CLS:
        return "yes, attention received" if family in QWEN else "yes, [CLS]"
    if name == "cdpruner":
        return "yes, without CLIP" if family in QWEN else "yes"
    if name == "tome":
        return "yes, in the tower" if family == "llava" else "yes, on its output"
    if name in ("grid", "pool") and family == "llava_next":
        return "yes, in raster order"
    return "yes"


def table() -> str:
    """The page's table, one row a method."""
    lines = [f"| method | {' | '.join(COLUMNS.values())} | all kept = unpruned | pruned = masked |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 3))
    for name in pruning.names():
        keeps = f"no: {NEVER_ALL[name]}" if name in NEVER_ALL else "yes"
        masked = "no: [CLS] enters" if name == "prunesid" else "no: merges" if name in MERGING else "yes"
        cells = [remark(name, family) for family in COLUMNS]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {keeps} | {masked} |")
    return "\n".join(lines)


@cache
def build(family: str, prompts: tuple[int, ...] = PROMPTS, attention: str = "sdpa"):
    return FAMILIES[family](prompts, attention={"text_config": attention, "vision_config": "sdpa"})


def make(case: str, rows: tuple[int, ...] = (0, 1, 2)):
    name = case.split(",")[0]
    evidence = {"boxes": [BOXES[row] for row in rows]} if name == "oracle" else {}
    return pruning.make(name, **CASES[case], **evidence)


def generate(model, inputs, method):
    with method(model) as record:
        output = model.generate(**inputs, **GREEDY)
    return torch.stack(output.logits, dim=1), output.sequences, record


@cache
def together(family: str, case: str):
    """The batch of a prompt with one image, with none and with two: logits, sequences and record."""
    return generate(*build(family), make(case))


def repacks(family: str, case: str) -> bool:
    return any(part is not None and part.repacks(family_of(build(family)[0])) for part in make(case).parts())


def test_every_method_is_here_and_in_the_docs():
    assert {case.split(",")[0] for case in CASES} | set(ELSEWHERE) == set(pruning.names())
    assert all((Path(__file__).parent / file).exists() for _, file in ELSEWHERE.values())
    assert set(COLUMNS) == set(FAMILIES)
    assert table() in PAGE.read_text(encoding="utf-8"), f"the table of {PAGE.name} should be:\n{table()}"


@pytest.mark.parametrize("case", [name for name in CASES if "," not in name and name not in NEVER_ALL])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_keeping_all_is_the_unpruned_model_bit_for_bit(family, case):
    model, inputs = build(family, (1, 0))
    count = int((inputs["input_ids"] == IMAGE).sum())
    parameters = ALL[case](count) if case in ALL else {"keep": count}
    evidence = {"boxes": BOXES[:2]} if case == "oracle" else {}
    with pruning.make(case, **parameters, **evidence)(model) as record:
        pruned = model(**inputs).logits
    assert record.visual_tokens == [[count] * LAYERS, [0] * LAYERS]
    assert torch.equal(pruned, model(**inputs).logits)


@pytest.mark.parametrize("case", DROPPING)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_is_masked(family, case):
    logits, sequences, record = together(family, case)
    oracle, inputs = build(family, attention="eager")
    again = repacks(family, case)
    if again and case == "sequence":  # numbered anew by the first method, which the second one keeps to
        positions = visible(oracle, inputs, record, 0).cumsum(dim=1) - 1
        inputs, again = {**inputs, "position_ids": positions.clamp(min=0)}, False
    with hidden(oracle, inputs, record, repacked=again):
        expected = oracle.generate(**inputs, **GREEDY)
    torch.testing.assert_close(logits, torch.stack(expected.logits, dim=1), atol=5e-5, rtol=0)
    assert sequences.tolist() == expected.sequences.tolist()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_its_prompts_one_by_one(family, case):
    model, inputs = build(family)
    logits, sequences, record = together(family, case)
    for row, images in enumerate(PROMPTS):
        single, tokens, alone = generate(model, take_row(inputs, PROMPTS, row), make(case, (row,)))
        torch.testing.assert_close(logits[row], single[0], atol=2e-4, rtol=0)
        assert sequences[row, -3:].tolist() == tokens[0, -3:].tolist()
        assert [numbers.tolist() for numbers in record.kept[row]] == [numbers.tolist() for numbers in alone.kept[0]]
        assert record.merged[row] == alone.merged[0]
        if images == 0:
            assert record.visual_tokens[row] == [0] * LAYERS
        elif images == 1 and not case.endswith("adaptive"):
            visual = int((inputs["input_ids"][row] == IMAGE).sum())
            assert record.visual_tokens[row] == make(case).visual_tokens_per_layer(visual, LAYERS)
    assert case == "full" or record.visual_tokens[0][-1] < int((inputs["input_ids"][0] == IMAGE).sum())
    assert record.visual_tokens[0] != record.visual_tokens[2] or case == "vtw"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_text_stays_in_order_at_its_positions(family, case):
    model, inputs = build(family)
    language_model = family_of(model).language_model
    _, (_, full_cos) = first_and_last(model, inputs)
    with make(case)(model) as record:
        (first, _), (last, cos) = first_and_last(model, inputs)
    for row in range(len(PROMPTS)):
        real = inputs["attention_mask"][row].bool()
        text = (inputs["input_ids"][row] != IMAGE)[real]
        words = language_model.embed_tokens(inputs["input_ids"][row][real][text])
        entering = first[row, -int(text.sum()) - record.visual_tokens[row][0] :]
        assert -1 not in places(words, entering), "text left or moved in front of the first layer"
        count = int(text.sum()) + record.visual_tokens[row][-1]
        if repacks(family, case) and case != "full":
            entered = count if case != "sequence" else len(entering)  # whose second method keeps positions
            expected = language_model.rotary_emb(last, torch.arange(entered)[None])[0][0]
            if PROMPTS[row]:  # a row without an image is left as it is
                found = places(cos[row, -count:], expected)
                assert -1 not in found and found[-1] == entered - 1, "positions are not counted anew"
        else:
            found = places(cos[row, -count:], full_cos[row][real])
            assert -1 not in found, "a token lost its position, or their order changed"
            assert set(text.nonzero()[:, 0].tolist()) <= set(found), "text left"


def state_of(model):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(vars(m))) for m in model.modules()]
    return hooks, sorted(vars(model.model)), {name: id(value) for name, value in vars(model.config).items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_same_again_and_nothing_left_behind(family, case):
    model, inputs = build(family)
    unpruned, before = model(**inputs).logits, state_of(model)
    outputs = []
    for _ in range(2):
        with make(case)(model) as record:
            outputs.append((model(**inputs).logits, [[kept.tolist() for kept in layers] for layers in record.kept]))
        assert state_of(model) == before
    assert torch.equal(outputs[0][0], outputs[1][0]) and outputs[0][1] == outputs[1][1]
    assert torch.equal(model(**inputs).logits, unpruned)


@pytest.mark.parametrize("case", CASES)
def test_decoding_without_a_cache_gives_the_same(case):
    logits, sequences, _ = together("llava", case)
    model, inputs = build("llava")
    with make(case)(model):
        uncached = model.generate(**inputs, **GREEDY, use_cache=False)
    torch.testing.assert_close(torch.stack(uncached.logits, dim=1), logits, atol=2e-5, rtol=0)
    assert uncached.sequences.tolist() == sequences.tolist()


def test_what_a_pair_makes_of_its_first_method_is_what_the_second_sees():
    pair = pruning.make("sequence", methods=PAIR)
    _, _, record = together("llava", "sequence")
    _, _, first = together("llava", "vispruner")
    assert record.kept[0][0].tolist() == first.kept[0][0].tolist()
    assert record.visual_tokens[0] == pair.visual_tokens_per_layer(36, LAYERS) == [5, 5, 2, 2, 2, 2]
