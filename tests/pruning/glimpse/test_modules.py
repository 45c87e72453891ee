"""Glimpse token, predictor, boxes and losses, by their sizes and by what the authors' code computes."""

import pytest
import torch

from pruning.glimpse.configuration import PUBLISHED_CONFIGS, GlimpseConfig
from pruning.glimpse.losses import box_mask, predictor_loss, predictor_losses
from pruning.glimpse.modules import GlimpseModules
from pruning.glimpse.predictor import raster_positions
from tests.pruning.glimpse.tiny_glimpse import tiny_modules
from tests.tiny_models import tiny_llava, tiny_qwen2_5_vl, tiny_qwen2_vl

# Width of the language model, its heads, width of the vision tower; parameters of the predictor and of everything.
PUBLISHED = {
    "qwen2.5-vl-3b": ((2048, 16, 1280), 9_451_009, 13_723_137),
    "qwen2.5-vl-7b": ((3584, 28, 1280), 9_454_081, 22_406_657),
    "llava-1.5-7b": ((4096, 32, 1024), 8_930_817, 25_847_297),
    "llava-1.5-13b": ((5120, 40, 1024), 8_932_865, 35_362_305),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_sizes(name):
    sizes, predictor, everything = PUBLISHED[name]
    with torch.device("meta"):
        modules = GlimpseModules(PUBLISHED_CONFIGS[name].config, *sizes)
    assert sum(parameter.numel() for parameter in modules.attn_fuser.parameters()) == predictor
    assert sum(parameter.numel() for parameter in modules.parameters()) == everything


def test_published_settings_name_layers_and_models():
    layers = {name: preset.config.reduce_layer for name, preset in PUBLISHED_CONFIGS.items()}
    assert layers == {"qwen2.5-vl-3b": 23, "qwen2.5-vl-7b": 18, "llava-1.5-7b": 21, "llava-1.5-13b": 26}
    assert PUBLISHED_CONFIGS["qwen2.5-vl-7b"].model == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert PUBLISHED_CONFIGS["qwen2.5-vl-7b"].config.selected_visual_layers == (31, 23, 15, 7)
    assert PUBLISHED_CONFIGS["llava-1.5-7b"].config.use_attention_logits is False


def test_initialised_as_the_authors_do():
    model, _ = tiny_llava()
    modules = GlimpseModules.for_model(model, GlimpseConfig(2, 6, (2, 1), False))
    assert 0.01 < modules.learnable_embeddings.std() < 0.03
    assert modules.le_proj.bias.count_nonzero() == 0
    bound = (6 / (2 * 32)) ** 0.5
    assert 0.9 * bound < modules.le_proj.weight.abs().max() <= bound
    assert (modules.attn_fuser.layers[0].norm1.weight == 1).all()


def test_tokens_of_one_image_do_not_depend_on_another():
    model, _ = tiny_qwen2_5_vl()
    predictor = tiny_modules(model).attn_fuser
    attention, conditions = torch.randn(30, 4), torch.randn(2, 30, 16)
    positions = raster_positions([(4, 6), (3, 2)])
    together = predictor(attention, conditions, positions, [24, 6])
    alone = predictor(attention[24:], conditions[:, 24:], positions[24:], [6])
    torch.testing.assert_close(together[24:], alone, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(together, predictor(attention, conditions, positions, [30]), atol=1e-3)


def test_models_that_do_not_fit():
    model, _ = tiny_qwen2_vl()
    with pytest.raises(TypeError, match=r"Qwen2\.5-VL and LLaVA"):
        tiny_modules(model)
    model, _ = tiny_llava()
    with pytest.raises(ValueError, match="reduce_layer=5"):
        GlimpseModules.for_model(model, GlimpseConfig(5, 6, (2, 1), False))


def test_configurations_that_do_not_fit():
    with pytest.raises(ValueError, match="glimpse_layers"):
        GlimpseConfig(reduce_layer=3, glimpse_layers=3, selected_visual_layers=(1,), use_attention_logits=True)
    with pytest.raises(ValueError, match="lacks le_layers, attn_fuse_size"):
        GlimpseConfig.from_json({"reduce_layer": 3, "selected_visual_layers": [1], "use_attention_logits": True})
    with pytest.raises(ValueError, match="deep_supervision=True"):
        GlimpseConfig.from_json(GlimpseConfig(1, 2, (1,), True).to_json() | {"deep_supervision": True})
    config = GlimpseConfig(1, 4, (3, 1), use_attention_logits=False, le_dropout_prob=0.0)
    assert GlimpseConfig.from_json(config.to_json()) == config


def test_box_covers_both_ends():
    mask = box_mask([[0.25, 0.25, 0.5, 0.5]], 4, 4)
    assert mask.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_boxes_beyond_the_image():
    assert box_mask([[1.0, 0.2, 1.0, 0.4]], 5, 8).sum() == 0
    assert box_mask([[-0.5, -0.5, 0.3, 0.3]], 4, 4).equal(box_mask([[0, 0, 0.3, 0.3]], 4, 4))
    assert box_mask([[-0.5, -0.5, -0.1, 0.9]], 4, 4).sum() == 0
    assert box_mask([], 4, 4).sum() == 0


def test_losses_of_the_published_example():
    logits = torch.tensor([-3, 2, 0.1, -0.1, 0, 5, 1, -2, 0.5])
    target = torch.zeros(9, dtype=torch.bool)
    target[[1, 2, 5, 6]] = True
    dice, bce = predictor_losses(logits, target, [9])
    torch.testing.assert_close(torch.stack([dice, bce]), torch.tensor([0.296143, 0.397604]), atol=1e-6, rtol=0)
    torch.testing.assert_close(predictor_loss(logits, target, [9]), torch.tensor(0.335903), atol=1e-6, rtol=0)


def test_every_sample_weighs_the_same():
    logits, target = torch.randn(10), torch.rand(10) > 0.5
    dice, bce = predictor_losses(logits, target, [2, 0, 8])
    parts = [predictor_losses(logits[:2], target[:2], [2]), predictor_losses(logits[2:], target[2:], [8])]
    torch.testing.assert_close(dice, (parts[0][0] + parts[1][0]) / 2)
    torch.testing.assert_close(bce, (parts[0][1] + parts[1][1]) / 2)
