"""What methods see equals what the model itself computes, and belongs to the right token."""

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

import pruning
from pruning.choosing.base import KeepPerImage
from pruning.methods.fastv import FastV
from pruning.models import projections as observe
from pruning.models.families import family_of
from tests.tiny_models import CLIP, FAMILIES, IMAGE, TEXT, tiny_llava, tiny_llava_next, tiny_qwen2_5_vl


class Spy(KeepPerImage):
    """Keeps the first tokens of every image and what it saw."""

    name = "spy"

    def select(self, seen):
        self.groups = [*getattr(self, "groups", []), seen]
        self.on_see(seen)
        return torch.arange(self.keep).expand(seen.num_images, -1)

    def choosing_flops(self, sizes):
        return 0


def look(model, inputs, on_see):
    spy = Spy(keep=3)
    spy.on_see = on_see
    with spy(model), torch.no_grad():
        model(**inputs)
    return spy.groups


def test_cls_row_is_that_of_eager_attention():
    model, inputs = tiny_llava((2, 1))
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        expected = tower(inputs["pixel_values"], output_attentions=True).attentions[-2][:, :, 0, 1:]
    tower.set_attn_implementation("sdpa")
    seen = []
    look(model, inputs, lambda images: seen.append(images.cls_attention_BHN))
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_features_belong_to_their_visual_tokens(family):
    """Projected, they are the visual tokens of the prompt; newlines take the features to their left."""
    model, inputs = FAMILIES[family]((2, 1))
    newlines = []

    def compare(seen):
        projected = model.model.multi_modal_projector(seen.features_BNC)
        is_newline = seen.cells_BN4.isnan().any(dim=-1)
        newlines.append(int(is_newline.sum()))
        torch.testing.assert_close(projected[~is_newline], seen.projected_BND[~is_newline], atol=1e-5, rtol=0)
        if newlines[-1]:
            model_newline = model.model.image_newline
            assert (seen.projected_BND[is_newline] == model_newline).all()
            places = is_newline[0].nonzero()[:, 0]
            assert torch.equal(seen.features_BNC[:, places], seen.features_BNC[:, places - 1])

    look(model, inputs, compare)
    # Two images of 4 rows and one of 6, in groups by size.
    assert newlines == ([0] if family == "llava" else [2 * 4, 6])


def test_cells_of_unpadded_crops():
    model, inputs = tiny_llava_next((1,))
    cells = []
    look(model, inputs, lambda seen: cells.append(seen.cells_BN4[0]))
    base, fine = cells[0][:9], cells[0][9:].view(4, 7, 4)
    assert base[4].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert fine[1, 2].tolist() == pytest.approx([2 / 6, 1 / 4, 3 / 6, 2 / 4])
    assert fine[:, 6].isnan().all()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_attention_received_where_there_is_no_cls(family):
    """Against the plain definition, computed from the vision block's own modules."""
    model, inputs = FAMILIES[family]((2,))
    tower, layer = model.model.visual, family_of(model).vision_layer
    calls = {}
    block = tower.blocks[layer]
    handle = block.attn.register_forward_pre_hook(
        lambda _, args, kwargs: calls.update(kwargs, x=args[0]), with_kwargs=True
    )
    seen = []
    look(model, inputs, lambda images: seen.append((images.images, images.cls_attention_BHN)))
    handle.remove()
    assert [images for images, _ in seen] == [[0], [1]]

    cos, sin = calls["position_embeddings"]
    q, k, _ = block.attn.qkv(calls["x"]).view(-1, 3, 2, 8).unbind(1)
    q, k = (torch.cat([-t[..., 4:], t[..., :4]], -1) * sin[:, None] + t * cos[:, None] for t in (q, k))
    start = 0
    for (_, attention), patches in zip(seen, (96, 24), strict=True):
        mine = slice(start, start + patches)
        start += patches
        weights = (torch.einsum("qhd,khd->hqk", q[mine], k[mine]) * 8**-0.5).softmax(-1)
        merged = weights.mean(dim=1).view(2, -1, 4).mean(dim=-1)
        expected = _raster(model, family, merged, patches)
        torch.testing.assert_close(attention[0], expected, atol=1e-6, rtol=0)


def _raster(model, family, merged_HN, patches):
    if family == "qwen2_vl":
        return merged_HN
    # Windows of 2x2 merged tokens over a raster of 4x6 or 3x2.
    rows, columns = (4, 6) if patches == 96 else (3, 2)
    order = sorted(
        range(rows * columns), key=lambda i: (i // columns // 2, i % columns // 2, i // columns, i % columns)
    )
    return merged_HN[:, torch.tensor(order).argsort()]


def test_features_of_windows_are_in_raster_order():
    """The block's output put into raster order is what the model's own merger makes of it, up to the merger."""
    model, inputs = tiny_qwen2_5_vl((1,))
    tower = model.model.visual
    seen = []
    look(model, inputs, lambda images: seen.append(images.features_BNC[0]))
    outputs = {}
    handle = tower.blocks[1].register_forward_hook(lambda *call: outputs.update(block=call[2]))
    with torch.no_grad():
        look(model, inputs, lambda images: None)
        handle.remove()
        # A merger that takes the mean shows where each group ends up.
        order = _raster(model, "qwen2_5_vl", outputs["block"].view(24, 4, -1).mean(1).T, 96).T
    torch.testing.assert_close(seen[0], order)


def test_towers_without_cls():
    vision = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
    text = {"model_type": "llama", **TEXT}
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_select_strategy="full"
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    _, inputs = tiny_llava((1,))
    sums = []
    look(model, inputs, lambda seen: sums.append(seen.cls_attention_BHN.sum(dim=-1)))
    torch.testing.assert_close(sums[0], torch.ones(1, 2))
    with pruning.make("vispruner", keep=4)(model) as record:
        model(**inputs)
    assert record.visual_tokens[0] == [4] * 6


@pytest.mark.parametrize("prompts", [(1,), (1, 0, 2)])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_last_row_is_that_of_eager_attention(family, prompts):
    model, inputs = FAMILIES[family](prompts)
    eager, _ = FAMILIES[family](prompts, attention="eager")
    expected = eager(**inputs, output_attentions=True).attentions
    rows = {}

    class Look(FastV):
        def score(self, seen):
            rows["last"] = seen.attention()
            places = seen.last_B1 - torch.tensor([[2, 0]])
            rows["two"] = seen.attention(places)
            rows["ahead"] = seen.attention_ahead()
            return super().score(seen)

    with Look(k=2)(model):
        model(**inputs)
    torch.testing.assert_close(rows["last"][:, :, 0], expected[1][:, :, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(rows["two"], expected[1][:, :, [-3, -1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(rows["ahead"][:, :, 0], expected[2][:, :, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_watching_layers_without_a_method():
    model, inputs = tiny_llava((1,))
    eager, _ = tiny_llava((1,), attention="eager")
    expected = eager(**inputs, output_attentions=True).attentions
    family = family_of(model)
    last = torch.tensor([[inputs["input_ids"].shape[1] - 1]])
    with observe.watch(family.layers) as watched:
        with pytest.raises(RuntimeError, match="has not run yet"):
            _ = watched[0].projections
        model(**inputs)
        for watch, attention in zip(watched, expected, strict=True):
            torch.testing.assert_close(watch.projections.rows(last)[0, :, 0], attention[0, :, -1], atol=1e-5, rtol=0)
    assert all(not layer.self_attn.q_proj._forward_hooks for layer in family.layers)


def test_received_attention_is_the_mean_over_queries_in_any_chunks(monkeypatch):
    queries, keys = torch.randn(1, 2, 10, 4), torch.randn(1, 2, 10, 4)
    expected = (queries @ keys.mT / 2).softmax(-1).mean(2)
    monkeypatch.setattr(observe, "QUERIES_AT_A_TIME", 3)
    torch.testing.assert_close(observe.received_attention(queries, keys), expected)
