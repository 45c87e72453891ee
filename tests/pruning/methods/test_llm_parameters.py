"""What the parameters of the methods inside the language model mean: budgets, floors, combinations and refusals."""

import pytest

import pruning
from pruning.choosing.budget import InfeasibleBudget, mean_visual_tokens
from pruning.methods.fastv import FastV
from pruning.methods.sequence import Sequence
from pruning.methods.vispruner import VisPruner
from pruning.models.sizes import Sizes
from pruning.registry import floor, solve
from tests.tiny_models import tiny_llava

LLAVA_7B = {"num_visual": 576, "num_layers": 32}


@pytest.mark.parametrize(
    ("layers", "budget", "ratio"),
    [([2, 8, 16], 192, 0.5596), ([2, 8, 16], 128, 0.4197), ([2, 8, 16], 64, 0.1916), ([8, 16, 24], 192, 0.2531)],
)
def test_pyramiddrop_reaches_a_budget(layers, budget, ratio):
    method = solve("pyramiddrop", budget, **LLAVA_7B, layers=layers)
    assert method.ratio == pytest.approx(ratio, abs=0.002)  # counts are whole: several ratios come as near
    assert mean_visual_tokens(method.visual_tokens_per_layer(**LLAVA_7B)) == pytest.approx(budget, abs=0.5)


def test_pyramiddrop_means_and_floor():
    assert (
        pruning.make("pyramiddrop").visual_tokens_per_layer(**LLAVA_7B) == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    )
    assert floor("pyramiddrop", **LLAVA_7B) == 144
    with pytest.raises(InfeasibleBudget, match="144"):
        solve("pyramiddrop", 128, **LLAVA_7B, layers=[8, 16, 24])


@pytest.mark.parametrize(
    ("version", "target", "mean"), [("v1", 192, 206.5), ("v1", 128, 145.4), ("v1", 96, 114.1), ("v1", 64, 82.3)]
)
def test_sparsevlm_tables_mean_more_than_their_names(version, target, mean):
    method = pruning.make("sparsevlm", version=version, target=target)
    assert mean_visual_tokens(method.visual_tokens_per_layer(**LLAVA_7B)) == pytest.approx(mean, abs=0.05)


@pytest.mark.parametrize("share", ["50%", "33.3%", "22.2%", "11.1%"])
@pytest.mark.parametrize(
    ("name", "fixed"), [("dart", {}), ("sparsevlm", {"version": "v1"}), ("sparsevlm", {"version": "v2"})]
)
def test_budgets_are_met_or_named_infeasible(name, fixed, share):
    try:
        method = solve(name, share, **LLAVA_7B, **fixed)
    except InfeasibleBudget as error:
        assert float(share[:-1]) * 5.76 < error.floor
    else:
        mean = mean_visual_tokens(method.visual_tokens_per_layer(**LLAVA_7B))
        assert mean == pytest.approx(float(share[:-1]) * 5.76, abs=4)  # DART's pivots take eight tokens at once


def test_vtw_has_one_budget_a_layer():
    assert solve("vtw", 270, **LLAVA_7B).k == 15
    assert floor("vtw", **LLAVA_7B) == 18


def test_a_sequence_reports_budgets_and_flops_of_the_whole():
    before, inside = VisPruner(keep=192), FastV(k=2, r=0.5)
    method = pruning.make("sequence", methods=[{"name": "vispruner", "keep": 192}, inside])
    assert method == Sequence([before, inside])
    assert method.visual_tokens_per_layer(**LLAVA_7B) == [192] * 2 + [96] * 30
    sizes = Sizes(576, 40, 577, 1024, 16, 24, 23, True, True, 4096, 32, 32, 128, 11008, 32)
    assert method.choosing_flops(sizes) == before.choosing_flops(sizes) + 2 * (192 + 40) * 4096
    with pytest.raises(ValueError, match="above the 100 visual tokens"):
        method.visual_tokens_per_layer(100, 32)


def test_a_sequence_meets_a_budget_by_what_its_first_method_keeps():
    pair = [{"name": "vispruner", "important_ratio": 0.75}, {"name": "fastv", "k": 4, "r": 0.5}]
    for share, keep in (("75%", 144), ("50%", 96), ("5.6%", 11)):
        method = solve("sequence", share, num_visual=144, num_layers=8, methods=pair)
        assert method.keep == keep and method.parts()[0] == VisPruner(keep=keep, important_ratio=0.75)
        per_layer = method.visual_tokens_per_layer(144, 8)
        assert mean_visual_tokens(per_layer) == pytest.approx(float(share[:-1]) * 1.44, abs=0.5)
    with pytest.raises(InfeasibleBudget, match=r"no setting near 115.2.*the nearest is 108.0"):
        solve("sequence", "80%", num_visual=144, num_layers=8, methods=pair)
    with pytest.raises(ValueError, match="visionzip|either keep"):
        Sequence([pruning.make("visionzip", dominant=4, contextual=2), FastV()], keep=5)
    with pytest.raises(ValueError, match="full has no number of tokens"):
        Sequence([pruning.make("full"), FastV()], keep=5)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([FastV(), VisPruner()], "vispruner acts before.*list vispruner first"),
        ([FastV(), FastV()], "both act inside"),
        ([VisPruner(), VisPruner()], "both act before"),
        ([VisPruner()], "give two"),
        ([Sequence([VisPruner(), FastV()]), FastV()], "already acts before and inside"),
        ([VisPruner(), "fastv"], "'fastv'"),
        ([{"keep": 4}, FastV()], "name"),
        ([{"name": "vispruner", "keeps": 4}, FastV()], "no parameter 'keeps'"),
        ("vispruner", "list"),
    ],
)
def test_what_cannot_be_combined(methods, message):
    with pytest.raises(ValueError, match=message):
        pruning.make("sequence", methods=methods)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("vtw", {"k": 0}, "k must be"),
        ("pyramiddrop", {"layers": [4, 2]}, "ascending"),
        ("pyramiddrop", {"layers": []}, "at least one"),
        ("pyramiddrop", {"layers": [0, 2]}, "layers must be"),
        ("pyramiddrop", {"layers": 8}, "layers must list"),
        ("pyramiddrop", {"ratio": 1.5}, "ratio must be"),
        ("pyramiddrop", {"ratios": [0.5, 2]}, "ratios must be"),
        ("dart", {"order": "random"}, "order must be one of norm_desc, index_asc, cpython_set"),
        ("dart", {"max_tokens": 1.5}, "max_tokens must be"),
        ("dart", {"visual_pivots": 0}, "visual_pivots must be"),
        ("sparsevlm", {"version": "v3"}, "version must be one of v1, v2"),
        ("sparsevlm", {"target": 100}, "target must be one of 192, 128, 96, 64"),
        ("sparsevlm", {"table": [9, 5]}, "one a layer"),
        ("sparsevlm", {"table": [9, 5, 2], "share": 0.5}, "give one of them"),
        ("sparsevlm", {"share": -0.5}, "share must be"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        pruning.make(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("vtw", {"k": 6}, "6 decoder layers: lower k"),
        ("pyramiddrop", {"layers": [2, 8]}, "6 decoder layers"),
        ("pyramiddrop", {"layers": [2, 3], "ratios": [0.5]}, "one ratio a layer"),
        ("dart", {"k": 6}, "6 decoder layers: lower k"),
        ("dart", {"max_tokens": 40}, "keep 44 of 36"),
        ("sparsevlm", {"layers": [2, 5], "share": 0.5}, "must follow"),
        ("pyramiddrop", {"layers": [2, 3], "ratios": [0.2, 0.5]}, "cannot keep 18 of 7"),
    ],
)
def test_parameters_that_do_not_fit_the_model(name, parameters, message):
    model, inputs = tiny_llava((1,))
    with pytest.raises(ValueError, match=message), pruning.make(name, **parameters)(model):
        model(**inputs)
