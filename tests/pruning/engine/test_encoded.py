"""Images encoded once and pruned by several methods: nothing differs from encoding them again for each."""

import pytest
import torch

import pruning
from pruning import EncodedImages
from pruning.methods.fastv import FastV
from pruning.methods.sequence import Sequence
from pruning.methods.vispruner import VisPruner
from tests.pruning.engine.fingerprint import fingerprint
from tests.tiny_models import FAMILIES, tiny_llava

GREEDY = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
# Together they look at everything that a run of the vision tower has to offer.
METHODS = [
    pruning.make("vispruner", keep=6),
    pruning.make("visionzip", dominant=4, contextual=2),
    pruning.make("cdpruner", keep=5),
    pruning.make("prumerge_plus", keep=5),
    pruning.make("pool", keep=4),
    pruning.make("random", keep=5),
    pruning.make("full"),
    pruning.make("fastv", k=2, r=0.6),
    pruning.make("sparsevlm", version="v1", layers=[0, 2, 3], share=0.6),
    Sequence([VisPruner(keep=5), FastV(k=2, r=0.6)]),
]


def outcome(pruned, model, inputs, **options):
    """Everything that a run leaves behind, in a form that compares exactly."""
    with pruned as record:
        output = model.generate(**inputs, **GREEDY | options)
    kept = [[numbers.tolist() for numbers in layers] for layers in record.kept]
    logits = torch.stack(output.logits).view(torch.int32)  # bits
    return output.sequences.tolist(), logits.tolist(), kept, record.visual_tokens, record.merged


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}], ids=["greedy", "beams", "no cache"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_method_gives_the_same_bits(family, options):
    model, inputs = FAMILIES[family]((1, 0, 2))
    images = EncodedImages(model, inputs)
    for method in [*METHODS, METHODS[0]]:
        alone = outcome(method(model), model, inputs, **options)
        assert outcome(method(model, images), model, images.inputs, **options) == alone, method


@torch.no_grad()
def test_a_forward_pass_gives_the_same_bits_and_a_second_one_too():
    model, inputs = tiny_llava((1, 2))
    images = EncodedImages(model, inputs)
    method = pruning.make("vispruner", keep=6)
    with method(model):
        expected = model(**inputs).logits
    with method(model, images):
        assert torch.equal(model(**images.inputs).logits, expected)
        assert torch.equal(model(**images.inputs).logits, expected)


@torch.no_grad()
def test_other_images_are_never_taken_for_these():
    model, inputs = tiny_llava((1,))
    other = {**inputs, "pixel_values": torch.randn_like(inputs["pixel_values"])}
    method = pruning.make("vispruner", keep=6)
    one, two = EncodedImages(model, inputs), EncodedImages(model, other)
    first, second = (outcome(method(model), model, given) for given in (inputs, other))
    assert first[1] != second[1] and first[2] != second[2]
    for images, expected in [(two, second), (one, first), (two, second)]:
        assert outcome(method(model, images), model, images.inputs) == expected
    without = {name: value for name, value in inputs.items() if name != "pixel_values"}
    _, text_only = tiny_llava((0,))
    for given in (other, two.inputs, without, text_only):
        with pytest.raises(ValueError, match=r"encoded beforehand.*images.inputs"), method(model, one):
            model(**given)
    assert outcome(method(model), model, other) == second


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_vision_tower_runs_once_and_nothing_stays_on_the_model(family):
    model, inputs = FAMILIES[family]((1, 2))
    model(**inputs)
    before, runs = fingerprint(model), []
    tower = model.model.visual if family.startswith("qwen") else model.model.vision_tower
    hook = tower.register_forward_pre_hook(lambda *_: runs.append(1))
    images = EncodedImages(model, inputs)
    for method in METHODS:
        with method(model, images):
            model.generate(**images.inputs, max_new_tokens=2, do_sample=False)
    hook.remove()
    assert len(runs) == 1
    assert fingerprint(model) == before


def test_what_cannot_be_shared():
    model, inputs = tiny_llava((1,))
    twin, _ = tiny_llava((1,))
    images = EncodedImages(model, inputs)
    before = fingerprint(model)
    with pytest.raises(ValueError, match="inside the vision tower"), pruning.make("tome", keep=5)(model, images):
        pass
    with pytest.raises(ValueError, match="another model"), pruning.make("random", keep=5)(twin, images):
        pass
    with pytest.raises(ValueError, match="no pixel_values"):
        EncodedImages(model, tiny_llava((0,))[1])
    broken = {**inputs, "pixel_values": torch.zeros(1, 3, 5, 5)}
    with pytest.raises(ValueError, match="5"):
        EncodedImages(model, broken)
    assert fingerprint(model) == before
