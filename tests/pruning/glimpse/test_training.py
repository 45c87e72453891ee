"""The training forward equals one written out by hand, and teaches the glimpse modules alone."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from pruning.glimpse.losses import predictor_loss
from pruning.glimpse.training import training_forward
from tests.pruning.glimpse.tiny_glimpse import K, tiny_modules
from tests.tiny_models import IMAGE, LAYERS, tiny_llava, tiny_qwen2_5_vl

FAMILIES = {"llava": tiny_llava, "qwen2_5_vl": tiny_qwen2_5_vl}
ANSWER = 2


def build(family, prompts=(1, 0, 2), **options):
    model, inputs = FAMILIES[family](prompts, **options)
    model.requires_grad_(False)
    modules = tiny_modules(model, glimpse_layers=LAYERS)
    labels = inputs["input_ids"].clone()
    labels[:, :-ANSWER] = -100
    return model, modules, inputs, labels


@torch.no_grad()
def by_hand(model, modules, inputs):
    """Logits of the answer with the token in front of it, over a KV cache: prompt, token and answer one by one."""
    text = model.model.language_model
    caught = {}
    hook = text.register_forward_pre_hook(lambda module, args, kwargs: caught.update(kwargs), with_kwargs=True)
    model(**inputs, use_cache=False)
    hook.remove()
    table = modules.token_table(text.config.rms_norm_eps)
    embeds, mask, positions = caught["inputs_embeds"], inputs["attention_mask"], caught["position_ids"]
    if positions is None:
        positions = torch.arange(embeds.shape[1]).expand(len(embeds), -1)
    positions = positions[-3:] if positions.ndim == 3 else positions
    cache, prompt = DynamicCache(config=text.config), embeds.shape[1] - ANSWER

    def step(hidden, positions, mask):
        return text(inputs_embeds=hidden, position_ids=positions, attention_mask=mask, past_key_values=cache)

    step(embeds[:, :prompt], positions[..., :prompt], mask[:, :prompt])
    ones = torch.ones_like(mask[:, :1])
    handles = [
        layer.register_forward_pre_hook(lambda module, args, row=row: (args[0] + row, *args[1:]))
        for layer, row in zip(text.layers[1:], table[1:], strict=True)
    ]
    mask = torch.cat([mask[:, :prompt], ones], dim=1)
    at = positions[..., prompt - 1 : prompt] + 1
    states = [step(table[0].expand(len(embeds), 1, -1), at, mask)]
    for handle in handles:
        handle.remove()
    for place in range(prompt, prompt + ANSWER - 1):
        mask, at = torch.cat([mask, ones], dim=1), at + 1
        states.append(step(embeds[:, place : place + 1], at, mask))
    return model.lm_head(torch.cat([state.last_hidden_state for state in states], dim=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_that_of_a_forward_by_hand(family):
    model, modules, inputs, labels = build(family)
    output = training_forward(model, modules, inputs, labels)
    logits = by_hand(model, modules, inputs)
    expected = cross_entropy(logits.flatten(0, 1), labels[:, -ANSWER:].flatten())
    torch.testing.assert_close(output.cross_entropy, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_right_padding_changes_nothing(family):
    model, modules, inputs, labels = build(family)
    expected = training_forward(model, modules, inputs, labels)
    moved = {name: value.clone() for name, value in inputs.items()}
    labels_right = labels.clone()
    for row, mask in enumerate(inputs["attention_mask"]):
        padding = int((mask == 0).sum())
        for values in (moved["input_ids"], moved["attention_mask"], moved.get("mm_token_type_ids"), labels_right):
            if values is not None:
                values[row] = values[row].roll(-padding)
    output = training_forward(model, modules, moved, labels_right)
    torch.testing.assert_close(output.cross_entropy, expected.cross_entropy, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.importance.logits_N, expected.importance.logits_N, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_does_not_reach_the_predictor(family):
    model, modules, inputs, labels = build(family)
    expected = training_forward(model, modules, inputs, labels).importance
    inputs["input_ids"][:, -ANSWER:] = 7
    output = training_forward(model, modules, inputs, labels).importance
    assert output.logits_N.equal(expected.logits_N)
    assert output.tokens_per_sample == [int((row == IMAGE).sum()) for row in inputs["input_ids"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_learns_and_the_model_does_not(family):
    model, modules, inputs, labels = build(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = len(model.model.language_model._forward_pre_hooks)
    optimizer = torch.optim.AdamW(modules.train().parameters(), lr=1e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(12):
        output = training_forward(model, modules, inputs, labels)
        importance = output.importance
        target = torch.arange(len(importance.logits_N)) % 3 == 0
        loss = output.cross_entropy + predictor_loss(importance.logits_N, target, importance.tokens_per_sample)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Rows of the table in front of layers behind K reach the answer alone, and still learn.
    rows = modules.learnable_embeddings.grad[:, 0].abs().sum(dim=1)
    assert len(rows) == LAYERS > K + 1 and (rows > 0).all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in modules.parameters())
    assert losses[-1] < losses[0]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert len(model.model.language_model._forward_pre_hooks) == hooks


def test_rows_without_an_answer():
    model, modules, inputs, labels = build("llava")
    labels[1] = -100
    with pytest.raises(ValueError, match="a row has no answer"):
        training_forward(model, modules, inputs, labels)


def test_dropout_on_the_token_in_training_only():
    model, modules, inputs, labels = build("llava")
    losses = [training_forward(model, modules, inputs, labels).cross_entropy for _ in range(2)]
    assert losses[0] == losses[1]
    losses = [training_forward(model, modules.train(), inputs, labels).cross_entropy for _ in range(2)]
    assert losses[0] != losses[1]
