"""The evidence oracle inside the language model keeps what the boxes cover."""

import pytest
import torch

import pruning
from pruning import solve
from pruning.glimpse.losses import box_mask
from tests.tiny_models import LAYERS, tiny_llava, tiny_qwen2_5_vl

BOX = [0.2, 0.1, 0.6, 0.7]


@torch.no_grad()
def kept(model, inputs, **parameters):
    with pruning.make("oracle_inside", k=2, **parameters)(model) as record:
        cache = model(**inputs).past_key_values
    return record, cache


@pytest.mark.parametrize("tiny", [tiny_llava, tiny_qwen2_5_vl])
def test_keeps_what_the_boxes_cover(tiny):
    model, inputs = tiny((1, 0, 1))
    record, cache = kept(model, inputs, boxes=[[BOX], [], [[0, 0, 0.01, 0.01]]])
    grid = (6, 6) if tiny is tiny_llava else (4, 6)
    assert record.kept[0][-1].tolist() == box_mask([BOX], *grid).flatten().nonzero()[:, 0].tolist()
    assert record.kept[2][-1].tolist() == [0]
    assert record.visual_tokens[0][1] == grid[0] * grid[1]
    assert len({layer.keys.shape[2] for layer in cache.layers}) == 1


def test_a_budget_takes_evidence_first():
    model, inputs = tiny_llava((1,))
    covered = set(box_mask([BOX], 6, 6).flatten().nonzero()[:, 0].tolist())
    for ratio, relation in ((0.2, set.issubset), (0.6, set.issuperset)):
        record, _ = kept(model, inputs, boxes=[[BOX]], fixed_remain_ratio=ratio)
        assert relation(set(record.kept[0][-1].tolist()), covered)
        assert record.visual_tokens[0][-1] == int(ratio * 36)
    method = solve("oracle_inside", "50%", num_visual=36, num_layers=LAYERS, k=2)
    assert sum(method.visual_tokens_per_layer(36, LAYERS)) / LAYERS == pytest.approx(18, abs=0.5)


def test_beams_share_the_choice_of_their_sample():
    model, inputs = tiny_qwen2_5_vl((2, 1))
    with pruning.make("oracle_inside", boxes=[[BOX], []])(model) as record:
        model.generate(**inputs, num_beams=2, max_new_tokens=2, do_sample=False)
    assert [tokens[-1] for tokens in record.visual_tokens] == [9 + 6, 1]


def test_boxes_for_too_few_samples():
    model, inputs = tiny_llava((1, 1))
    with pytest.raises(ValueError, match="one entry for every sample"):
        kept(model, inputs, boxes=[[BOX]])
