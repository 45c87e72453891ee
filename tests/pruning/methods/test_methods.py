"""What is particular to each method."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pruning
from pruning.methods.random import _scramble
from pruning.methods.vispruner import VisPruner
from pruning.models.sizes import Sizes
from tests.tiny_models import FAMILIES, tiny_llava


@torch.no_grad()
def kept(model, inputs, name, **parameters):
    with pruning.make(name, **parameters)(model) as record:
        model(**inputs)
    return [numbers[0].tolist() for numbers in record.kept]


def test_random_differs_by_seed_and_image_only():
    model, inputs = tiny_llava((1, 1, 1))
    inputs["pixel_values"][2] = inputs["pixel_values"][0]
    first, second, third = kept(model, inputs, "random", keep=12, seed=0)
    assert first == third != second
    assert kept(model, inputs, "random", keep=12, seed=0)[0] == first
    assert kept(model, inputs, "random", keep=12, seed=1)[0] != first


@pytest.mark.parametrize("family", FAMILIES)
def test_random_inside_differs_by_seed_and_images_only(family):
    model, inputs = FAMILIES[family]((1, 2))

    def drawn(**parameters):
        with pruning.make("random_inside", k=2, r=0.5, **parameters)(model) as record, torch.no_grad():
            model(**inputs)
        return [sample[2].tolist() for sample in record.kept]

    first = drawn()
    assert first == drawn()
    assert first != drawn(seed=1)
    assert [len(numbers) for numbers in first] == [round(len(sample) / 2) for sample in record_of_all(model, inputs)]
    _, alone = FAMILIES[family]((1,))
    with pruning.make("random_inside", k=2, r=0.5)(model) as record, torch.no_grad():
        model(**alone)
    same = torch.equal(alone["pixel_values"], inputs["pixel_values"][: len(alone["pixel_values"])])
    assert (record.kept[0][2].tolist() == first[0]) == same


def record_of_all(model, inputs):
    """The visual tokens of every sample, unpruned."""
    with pruning.make("full")(model) as record, torch.no_grad():
        model(**inputs)
    return [sample[0].tolist() for sample in record.kept]


def test_random_inside_is_uniform():
    model, inputs = tiny_llava((1,))
    counts = torch.zeros(36)
    for seed in range(300):
        with pruning.make("random_inside", k=1, r=0.75, seed=seed)(model) as record, torch.no_grad():
            model(**inputs)
        counts[record.kept[0][1]] += 1
    # 300 draws of a quarter: mean 75, standard deviation 7.5.
    assert counts.sum() == 300 * 9
    assert (counts - 75).abs().max() < 5 * 7.5


def test_random_numbers_are_those_of_splitmix64():
    """The first output for seed 0, 0xE220A8397B1DCDAF, as a signed number."""
    assert _scramble(torch.tensor(-0x61C8864680B583EB)).item() == 0xE220A8397B1DCDAF - 2**64


def test_random_is_uniform():
    model, inputs = tiny_llava((1,))
    drawn = torch.zeros(36)
    for seed in range(300):
        drawn[kept(model, inputs, "random", keep=9, seed=seed)[0]] += 1
    # 300 draws of a quarter: mean 75, standard deviation 7.5.
    assert drawn.sum() == 300 * 9 and (drawn - 75).abs().max() < 5 * 7.5


@pytest.mark.parametrize("keep", range(1, 37))
def test_grid_keeps_exactly_as_many_and_spreads_them(keep):
    model, inputs = tiny_llava((1,))
    (numbers,) = kept(model, inputs, "grid", keep=keep)
    assert len(set(numbers)) == keep and numbers == sorted(numbers)
    rows, columns = {number // 6 for number in numbers}, {number % 6 for number in numbers}
    assert min(len(rows), len(columns)) >= min(int(keep**0.5), 6)


def test_oracle_takes_evidence_first_and_by_turns():
    model, inputs = tiny_llava((1,))
    # Cells are sixths: the first box touches 3x2 tokens around number 7, the second the last token alone.
    boxes = [[[0.05, 0.2, 0.45, 0.45], [0.9, 0.9, 1.0, 1.0]]]
    inside = {6, 7, 8, 12, 13, 14}
    (two,) = kept(model, inputs, "oracle", keep=2, boxes=boxes)
    assert two[-1] == 35 and two[0] in (7, 13)
    (seven,) = kept(model, inputs, "oracle", keep=7, boxes=boxes)
    assert set(seven) == inside | {35}
    (ten,) = kept(model, inputs, "oracle", keep=10, boxes=boxes)
    assert set(ten) > inside | {35}
    assert kept(model, inputs, "oracle", keep=5, boxes=[[]]) == kept(model, inputs, "random", keep=5)


def test_oracle_shares_between_overlapping_boxes():
    model, inputs = tiny_llava((1,))
    (numbers,) = kept(model, inputs, "oracle", keep=4, boxes=[[[0, 0, 0.5, 1], [0, 0, 0.6, 1], [0.8, 0, 1, 0.1]]])
    assert any(number % 6 >= 4 for number in numbers)


@pytest.mark.parametrize("family", FAMILIES)
def test_vispruner_with_all_important_keeps_the_most_attended(family):
    model, inputs = FAMILIES[family]((1,))
    scores = []

    class Look(VisPruner):
        def select(self, seen):
            scores.append(seen.cls_attention_BHN.mean(dim=1))
            return super().select(seen)

    with Look(keep=6, important_ratio=1.0)(model) as record, torch.no_grad():
        model(**inputs)
    assert record.kept[0][0].tolist() == scores[0][0].topk(6).indices.sort().values.tolist()


def test_sequential_prune_keeps_the_reference_order_of_floats():
    stages = pruning.make("sequential_prune", k=2, r=0.9).stages
    assert list(stages(576, 32).values()) == [518, 460, 403, 345, 288, 230, 172, 115, 57]
    assert list(pruning.make("sequential_prune", r=0.75).stages(576, 32).values())[-2:] == [230, 144]
    assert len(pruning.make("sequential_prune", r=0.7, step=7).stages(100, 32)) == 9
    assert list(pruning.make("sequential_prune", r=0.9).stages(100, 32).values())[-3:] == [29, 19, 9]


def test_fastv_names_its_rounding():
    assert pruning.make("fastv", k=2, r=0.9).stages(576, 32) == {2: 58}
    assert pruning.make("fastv", k=2, r=0.9, rounding="int").stages(576, 32) == {2: 57}
    assert pruning.make("fastv", k=2, r=0.875).stages(100, 32) == {2: 12}


class Counted:
    """Wraps a choice so that its FLOPs are counted."""

    flops = 0

    def count_flops(self, choice, *args):
        with FlopCounterMode(display=False) as counter:
            result = choice(*args)
        Counted.flops += counter.get_total_flops()
        return result


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("random", {"keep": 5}),
        ("oracle", {"keep": 5, "boxes": [[[0, 0, 1, 1]]]}),
        ("vispruner", {"keep": 5}),
        ("vispruner", {"keep": 5, "important_ratio": 1.0}),
        ("fastv", {"k": 2, "r": 0.6}),
        ("sequential_prune", {"k": 1, "r": 0.8, "step": 20}),
    ],
)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@torch.no_grad()
def test_choosing_flops_equal_the_counter(family, name, parameters):
    model, inputs = FAMILIES[family]((1,))
    base = type(pruning.make(name, **parameters))

    class Look(base, Counted):
        def select(self, seen):
            return self.count_flops(super().select, seen)

        def choose(self, seen, counts):
            return self.count_flops(super().choose, seen, counts)

    Counted.flops = 0
    method = Look(**parameters)
    with method(model):
        model(**inputs)
    visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    sizes = Sizes.of(model.config, visual_tokens=visual, text_tokens=inputs["input_ids"].shape[1] - visual)
    assert method.choosing_flops(sizes) == pytest.approx(Counted.flops, rel=0.01)
