"""Methods for videos: what they promise on prompts of videos and images, and what is particular to each."""

import pytest
import torch

import pruning
from pruning.choosing.video import lengths_of_segments
from pruning.methods.evs import changes
from pruning.methods.fastvid import FastVID
from pruning.methods.flashvid import Trees
from pruning.methods.vcast import VCast, shared_out
from pruning.methods.vidcom2 import VidCom2
from pruning.models.families import family_of
from tests.pruning.engine import test_masking_oracle as oracle
from tests.pruning.engine.fingerprint import fingerprint
from tests.pruning.methods.test_host_syncs import syncs_of
from tests.tiny_models import FAMILIES, LAYERS, VIDEO, take_row, tiny_llava, tiny_qwen2_5_vl

QWEN = ["qwen2_vl", "qwen2_5_vl"]
PROMPTS = ("v", 0, "ivi")  # videos of 3 x 6 and 2 x 4 tokens, images of 24 and 6
GREEDY = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
CASES = {
    "vidcom2": {"ratio": 0.4},
    "vidcom2, exact": {"ratio": 0.4, "exact": True},
    "fastvid": {"ratio": 0.5, "segments": 2, "context_share": 0.5, "anchor_every": 2},
    "evs": {"rate": 0.5},
    "vcast": {"ratio": 0.4},
    "flashvid": {"ratio": 0.4, "min_segments": 2, "layer": 3, "share": 0.5},
    "flashvid, second": {"ratio": 0.4, "selection": "attn_div_v2", "counts": "tree", "share": 1.0},
}
CHOOSING = ["vidcom2", "vidcom2, exact", "evs", "vcast"]


def make(case: str):
    return pruning.make(case.split(",")[0], **CASES[case])


def generate(model, inputs, method, **options):
    with method(model) as record:
        output = model.generate(**inputs, **GREEDY | options)
    kept = [[numbers.tolist() for numbers in layers] for layers in record.kept]
    return torch.stack(output.logits, dim=1), output.sequences[:, -3:].tolist(), kept, record.merged


def moving(frames: int, size: int, width: int = 8) -> torch.Tensor:
    """A still video, float64 `[F, M, D]`, of which one token changes in every frame."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, size, width, generator=generator, dtype=torch.double).repeat(frames, 1, 1)
    for frame in range(1, frames):
        tokens[frame, frame % size] = torch.randn(width, generator=generator, dtype=torch.double)
    return tokens


def test_every_method_for_videos_is_here():
    names = {name for name in pruning.names() if pruning.registry.get(name).videos_only}
    assert {case.split(",")[0] for case in CASES} == names


@pytest.mark.parametrize("attention", oracle.ATTENTION)
@pytest.mark.parametrize("case", CHOOSING)
@pytest.mark.parametrize("family", QWEN)
def test_equals_the_model_in_which_the_others_are_hidden(family, case, attention):
    oracle.compare(family, make(case), PROMPTS, attention, do_sample=False)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", QWEN)
def test_a_batch_is_its_prompts_one_by_one(family, case):
    model, inputs = FAMILIES[family](PROMPTS)
    logits, sequences, kept, merged = generate(model, inputs, make(case))
    for row in range(len(PROMPTS)):
        alone = generate(model, take_row(inputs, PROMPTS, row), make(case))
        torch.testing.assert_close(logits[row], alone[0][0], atol=2e-4, rtol=0)
        assert (sequences[row], kept[row], merged[row]) == (alone[1][0], alone[2][0], alone[3][0])
    assert 0 < len(kept[0][0]) < 18, "the video lost tokens"


@pytest.mark.parametrize("case", CASES)
def test_beams_and_decoding_without_a_cache_give_the_same(case):
    model, inputs = tiny_qwen2_5_vl(("v", "vi"))
    logits, sequences, kept, _ = generate(model, inputs, make(case))
    uncached = generate(model, inputs, make(case), use_cache=False)
    torch.testing.assert_close(uncached[0], logits, atol=2e-5, rtol=0)
    assert uncached[1:3] == (sequences, kept)
    assert generate(model, inputs, make(case), num_beams=2)[2] == kept


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_images_stay_whole_and_nothing_is_left_behind(family, case):
    model, inputs = FAMILIES[family](("ivi", "i"))
    unpruned, before = model(**inputs).logits, fingerprint(model)
    with make(case)(model) as record:
        model(**inputs)
        kept = [row[0].tolist() for row in record.kept]
    number = int((inputs["input_ids"][0] == VIDEO).sum())
    assert [token for token in kept[0] if token < 24] == list(range(24))
    assert [token for token in kept[0] if 24 + number <= token < 30 + number] == list(range(24 + number, 30 + number))
    assert kept[1] == list(range(24))
    assert fingerprint(model) == before
    assert torch.equal(model(**inputs).logits, unpruned)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_models_that_take_no_videos_are_refused(case):
    model, inputs = tiny_llava((1,))
    with pytest.raises(ValueError, match=r"prunes videos, and models of type 'llava' take none"), make(case)(model):
        model(**inputs)


@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_the_mean_query_of_a_frame_sees_its_merged_keys(family):
    model, inputs = FAMILIES[family](("v",))
    block = model.model.visual.blocks[family_of(model).vision_layer].attn
    calls, seen = {}, []
    handle = block.register_forward_pre_hook(lambda _, args, kwargs: calls.update(kwargs, x=args[0]), with_kwargs=True)
    method = make("evs")
    method.select = lambda video: seen.append(video.frame_attention_BN) or torch.arange(18)[None]
    with method(model):
        model(**inputs)
    handle.remove()
    cos, sin = calls["position_embeddings"]
    q, k, _ = block.qkv(calls["x"]).view(-1, 3, 2, 8).unbind(1)
    q, k = (torch.cat([-t[..., 4:], t[..., :4]], -1) * sin[:, None] + t * cos[:, None] for t in (q, k))
    query, keys = q.view(3, 24, 2, 8).mean(dim=1), k.view(3, 6, 4, 2, 8).mean(dim=2)
    expected = (torch.einsum("fhd,fmhd->fhm", query, keys) * 8**-0.5).softmax(-1).mean(dim=1)
    if family == "qwen2_5_vl":  # windows of 2x2 merged tokens over a raster of 2x3: 0 1 3 4, then 2 5
        expected = expected[:, torch.tensor([0, 1, 3, 4, 2, 5]).argsort()]
    torch.testing.assert_close(seen[0].view(3, 6), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", CHOOSING)
def test_choosing_reads_nothing_back(case):
    assert syncs_of(make(case), tiny_qwen2_5_vl(("v", "v"))) == []


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("evs", {}, [[9] * LAYERS, [4] * LAYERS]),
        ("vcast", {}, [[9] * LAYERS, [4] * LAYERS]),
        ("vidcom2", {"exact": True}, [[9] * LAYERS, [4] * LAYERS]),
    ],
)
@torch.no_grad()
def test_a_budget_is_solved_for_where_there_is_a_formula(name, parameters, expected):
    model, inputs = tiny_qwen2_5_vl(("v", "v"))
    with pruning.solve(name, "50%", num_visual=18, num_layers=LAYERS, **parameters)(model) as record:
        model(**inputs)
    assert record.visual_tokens == expected


@pytest.mark.parametrize("name", ["vidcom2", "fastvid", "flashvid"])
def test_without_a_formula_no_budget_is_promised(name):
    with pytest.raises(ValueError, match="no formula"):
        pruning.solve(name, "50%", num_visual=18, num_layers=LAYERS)


def test_evs_sees_what_changes():
    change = changes(moving(4, 6)[None])[0].view(4, 6)
    assert (change[0] == 255).all()
    # A token that changed differs once when it does, and once when it is back.
    assert (change[1:] > 1e-9).nonzero().tolist() == [[0, 1], [1, 1], [1, 2], [2, 2], [2, 3]]


def test_vidcom2_prefers_what_is_unlike_the_video():
    tokens = moving(5, 6)
    tokens[3] = torch.randn(6, 8, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    kept, likeness = VidCom2(ratio=0.3).choose(tokens[None])
    assert kept[0].sum(dim=1).argmax() == 3
    for frame in range(5):
        assert likeness[0, frame][kept[0, frame]].max() <= likeness[0, frame][~kept[0, frame]].min()


def test_vcast_shares_out_exactly_and_what_is_left_goes_to_one_frame():
    share = torch.tensor([[0.5, 0.26, 0.24]], dtype=torch.double)
    assert shared_out(share, 10, 0, 10).tolist() == [[5, 3, 2]]
    assert shared_out(share, 12, 1, 5).tolist() == [[5, 4, 3]]
    kept, keep = VCast(ratio=0.3, min_per_frame=2).choose(moving(5, 6)[None])
    assert kept.sum() == keep == 10
    assert (kept.sum(dim=2) >= 2).all()


def test_segments():
    assert lengths_of_segments(torch.tensor([False, True, True, False])) == [2, 1, 2]
    assert lengths_of_segments(torch.zeros(0, dtype=torch.bool)) == [1]


def test_fastvid_keeps_the_salient_tokens_and_merges_the_rest_into_anchors():
    tokens = moving(4, 6)
    attention = torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    method = FastVID(ratio=0.5, segments=1, tau=-1.0, context_share=0.4, anchor_every=4)
    (places, values, members), lengths = method.merge(tokens, attention, tokens.mean(dim=1))
    assert lengths == [4]
    salient = (attention.topk(2, dim=1).indices + torch.arange(4)[:, None] * 6).flatten().tolist()
    alone = members.sum(dim=1) == 1
    assert set(salient) <= set(places.tolist())
    assert torch.equal(values[alone], tokens.flatten(0, 1)[places[alone]])
    # Four anchors in the last frame take in what is not salient, all of it.
    assert places[~alone].min() >= 18 and len(places) == 8 + 4
    assert members.sum(dim=0).tolist() == [1] * 24


def test_flashvid_joins_what_stands_still_along_time():
    tokens = moving(5, 6)
    none = torch.zeros(5, 6, dtype=torch.bool)
    merged, root, left = Trees(counts="tree").grow(tokens, none, 2)
    members = root == torch.arange(30)[:, None]
    flat, kept = tokens.flatten(0, 1), left.flatten()
    # Token 0 never changes: one tree through all frames.
    assert members[0].nonzero()[:, 0].tolist() == [0, 6, 12, 18, 24]
    assert members[kept].sum() == 30 and not members[~kept].any()
    means = members[kept].double() @ flat / members[kept].sum(dim=1, keepdim=True)
    torch.testing.assert_close(merged.flatten(0, 1)[kept], means)
    short, same_root, _ = Trees(counts="reference").grow(tokens, none, 2)
    assert torch.equal(same_root, root)
    torch.testing.assert_close(short[0, 0], tokens[0, 0] * 5 / 2)  # one child counted, four branches summed


def test_flashvid_picks_every_token_once_and_leaves_so_many():
    tokens, attention = moving(5, 6), torch.rand(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    method = Trees(ratio=0.5, expansion=1.0, alpha=0.3, min_segments=2, segment_threshold=-1.0)
    (places, values, members), lengths = method.merge(tokens, attention)
    assert sum(lengths) == 5 and len(lengths) == 2
    assert places.tolist() == sorted(set(places.tolist())) and len(values) == len(places)
    assert members.sum(dim=0).tolist() == [1] * 30
    assert 15 <= len(places) <= 20, "three a frame, rounded up in each"
    assert [len(set(row.tolist())) for row in method.pick(tokens, attention, 6)] == [6] * 5


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("evs", {"rate": 1.5}, "rate must be"),
        ("vidcom2", {"temperature": 0}, "temperature must be"),
        ("vcast", {"min_per_frame": -1}, "min_per_frame must be"),
        ("fastvid", {"anchor_every": 0}, "anchor_every must be"),
        ("fastvid", {"tau": 2}, "tau must be"),
        ("flashvid", {"selection": "attn"}, "selection must be one of attn_div, attn_div_v2"),
        ("flashvid", {"counts": "all"}, "counts must be one of reference, tree"),
        ("flashvid", {"layer": 0}, "layer must be"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        pruning.make(name, **parameters)
