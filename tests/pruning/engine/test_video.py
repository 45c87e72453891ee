"""Videos in Qwen's prompts, alone and between images: temporal patches of their own, one image to a method."""

import pytest
import torch

import pruning
from pruning import EncodedImages
from pruning.glimpse.method import GlimpsePrune
from tests.pruning.engine import test_encoded
from tests.pruning.engine import test_masking_oracle as oracle
from tests.pruning.engine.fingerprint import fingerprint
from tests.pruning.engine.test_engine import generate
from tests.pruning.glimpse import test_method as glimpse
from tests.pruning.glimpse.tiny_glimpse import tiny_modules
from tests.tiny_models import FAMILIES, VIDEO, take_row, tiny_qwen2_5_vl, tiny_qwen2_vl

QWEN = ["qwen2_vl", "qwen2_5_vl"]
PROMPTS = ("v", 0, "ivi")


@pytest.mark.parametrize("attention", oracle.ATTENTION)
@pytest.mark.parametrize("name", oracle.METHODS)
@pytest.mark.parametrize("family", QWEN)
def test_equals_the_model_in_which_the_others_are_hidden(family, name, attention):
    oracle.compare(family, oracle.METHODS[name], PROMPTS, attention, do_sample=False)


@pytest.mark.parametrize("name", oracle.METHODS)
@pytest.mark.parametrize("family", QWEN)
def test_beams(family, name):
    oracle.compare(family, oracle.METHODS[name], ("vi", "v"), "sdpa", beams=3, do_sample=False)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_glimpse_equals_the_model_in_which_the_others_are_hidden(attention, beams):
    glimpse.test_equals_the_model_in_which_the_others_are_hidden("qwen2_5_vl", PROMPTS, attention, beams)


@pytest.mark.parametrize("method", test_encoded.METHODS, ids=lambda method: method.name)
def test_batch_equals_singles(method):
    model, inputs = tiny_qwen2_5_vl(PROMPTS)
    with method(model) as record:
        together = generate(model, inputs)
        kept = record.kept
        for row in range(len(PROMPTS)):
            alone = generate(model, take_row(inputs, PROMPTS, row))
            assert together[row, -3:].tolist() == alone[0, -3:].tolist()
            assert [numbers.tolist() for numbers in kept[row]] == [numbers.tolist() for numbers in record.kept[0]]


@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_what_a_method_keeps_of_an_image_does_not_depend_on_the_video_in_front_of_it(family):
    model, inputs = FAMILIES[family](("vi",))
    with pruning.make("vispruner", keep=5)(model) as record:
        model(**inputs)
        kept = record.kept[0][0]
        model(**FAMILIES[family](("i",))[1])
    assert kept[5:].tolist() == (record.kept[0][0] + 18).tolist()
    assert kept[4] < 18, "five of the 18 tokens of the video"


@torch.no_grad()
def test_the_predictor_looks_at_every_temporal_patch_on_its_own():
    model, inputs = tiny_qwen2_5_vl(("v",))
    modules = tiny_modules(model)
    blocks = []
    modules.attn_fuser.register_forward_hook(lambda module, args, output: blocks.append((args[2], args[3])))
    method = GlimpsePrune(modules=modules, fixed_remain_ratio=0.5, per_image=True)
    with method(model) as record:
        model(**inputs)
    positions, lengths = blocks[0]
    assert lengths == [6, 6, 6]
    assert positions.tolist() == [[row, column] for row in range(2) for column in range(3)] * 3
    assert record.visual_tokens[0][-1] == 9, "per video, not per temporal patch"


def test_keeps_what_the_predictor_of_the_training_forward_rates_above_one_half():
    glimpse.test_keeps_what_the_predictor_of_the_training_forward_rates_above_one_half("qwen2_5_vl", PROMPTS)


@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_features_asked_for_beforehand_are_not_taken_for_the_prompts(family):
    model, inputs = FAMILIES[family](("v",))
    _, image = FAMILIES[family](("i",))
    with pruning.make("vispruner", keep=5)(model) as record:
        model(**inputs)
        kept = record.kept[0][0]
        model.model.get_image_features(image["pixel_values"], image["image_grid_thw"])
        model(**inputs)
    assert record.kept[0][0].tolist() == kept.tolist()


@torch.no_grad()
def test_the_model_is_left_as_it_was():
    model, inputs = tiny_qwen2_5_vl(PROMPTS)
    logits, before = model(**inputs).logits, fingerprint(model)
    with pruning.make("random", keep=18)(model):
        pass
    with pruning.make("fastv", k=2, r=0.0)(model):
        assert model(**inputs).logits.equal(logits)
    assert fingerprint(model) == before


def test_placeholders_without_a_video():
    model, inputs = tiny_qwen2_vl((1,))
    inputs["input_ids"][0, -1] = VIDEO
    inputs["mm_token_type_ids"] = None
    with pytest.raises(ValueError, match="1 video placeholders but no video"), pruning.make("fastv")(model):
        model(**inputs, position_ids=torch.zeros(3, 1, 31).long())


def test_videos_are_not_encoded_beforehand():
    model, inputs = tiny_qwen2_vl(("iv",))
    with pytest.raises(ValueError, match="videos cannot be encoded beforehand"):
        EncodedImages(model, inputs)
