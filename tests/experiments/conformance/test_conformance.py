import json
import shutil

import numpy as np
import pytest

from experiments.conformance.__main__ import main, run
from tests.experiments.conformance.golden_cases import GOLDEN, copy_llm, copy_vision, rewrite

SUPPORTED = {
    "vispruner": 8,
    "fastervlm": 6,
    "cdpruner": 6,
    "divprune": 7,
    "visionzip": 6,
    "prumerge": 6,
    "prumerge_plus": 6,
    "scope": 3,
    "holov": 2,
    "mmtok": 3,
    "prunesid": 2,
    "hiprune": 2,
    "vscan": 3,
    "vidcom2": 2,
    "fastvid": 2,
    "evs": 2,
    "vcast": 2,
    "flashvid": 2,
    "sequential_prune": 12,
    "fastv": 7,
    "pyramiddrop": 3,
    "sparsevlm": 4,
    "dart": 4,
    "vtw": 2,
    "glimpse": 24,
}


def test_all_cases_of_the_methods_we_have_agree():
    outcomes = run(GOLDEN)
    assert [outcome for outcome in outcomes if outcome.verdict == "differ"] == []
    agreeing = [outcome.method for outcome in outcomes if outcome.verdict == "agree"]
    assert {name: agreeing.count(name) for name in SUPPORTED} == SUPPORTED
    assert not [outcome for outcome in outcomes if outcome.verdict == "unsupported" and outcome.method in SUPPORTED]
    cases = len(json.loads((GOLDEN / "llm" / "cases.json").read_text()))
    files = len([*(GOLDEN / "vision").glob("*.npz"), *(GOLDEN / "glimpse").rglob("*.npz")])
    assert len(outcomes) == cases + files


def test_the_table_names_case_method_and_verdict(tmp_path, capsys):
    folder = copy_vision(tmp_path, "vispruner_07", "vispruner_08")
    shutil.copy(folder / "vision" / "vispruner_07.npz", folder / "vision" / "newmethod_01.npz")
    rewrite(
        folder / "vision" / "newmethod_01.npz",
        lambda arrays: arrays.update(params=np.array('{"method": "newmethod"}')),
    )
    assert main([str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["vispruner_07", "vispruner", "agree"] in lines
    assert ["vispruner_08", "vispruner", "agree"] in lines
    assert ["newmethod_01", "newmethod", "unsupported"] in lines


@pytest.mark.parametrize("name", ["vispruner_07", "vispruner_08"])
def test_a_wrong_index_exits_1_and_is_shown(name, tmp_path, capsys):
    folder = copy_vision(tmp_path, name)

    def swap_last(arrays: dict) -> None:
        kept = arrays["kept"].reshape(-1)
        unused = sorted(set(range(kept.max())) - set(kept.tolist()))
        kept[-1] = unused[-1]

    rewrite(folder / "vision" / f"{name}.npz", swap_last)
    assert main([str(folder / "vision")]) == 1
    output = capsys.readouterr().out
    assert "differ" in output
    assert "kept[" in output


def test_a_case_the_method_refuses_is_a_disagreement(tmp_path, capsys):
    folder = copy_vision(tmp_path, "vispruner_07", "vispruner_08")
    rewrite(
        folder / "vision" / "vispruner_07.npz",
        lambda arrays: arrays.update(params=np.array('{"method": "vispruner", "keep": 1000, "important_ratio": 0.5}')),
    )
    assert main([str(folder)]) == 1
    output = capsys.readouterr().out
    assert "raised ValueError" in output
    assert "agree" in output


def test_other_sizes_and_batches_of_the_format_are_accepted(tmp_path):
    # A batch of two whose images are one and its mirror image: what is kept must be mirrored too.
    generator = np.random.default_rng(0)
    attention = generator.random((5, 90))
    attention /= 2 * attention.sum(axis=1, keepdims=True)
    important = np.sort(np.argsort(-attention.mean(0), kind="stable")[:21])
    mirrored = np.sort(89 - important)
    features = generator.standard_normal((90, 7))
    (tmp_path / "vision").mkdir()
    np.savez(
        tmp_path / "vision" / "vispruner_01.npz",
        params=np.array(json.dumps({"method": "vispruner", "keep": 21, "important_ratio": 1.0})),
        features=np.stack([features, features[::-1]]),
        cls_attention=np.stack([attention, attention[:, ::-1]]),
        kept=np.stack([important, mirrored]),
    )
    assert main([str(tmp_path)]) == 0


def corrupt_kept(case: dict) -> None:
    kept = case["expected"]["kept"]["3"]
    kept[0] = next(i for i in range(100) if i not in kept)
    kept.sort()


def corrupt_unlisted_layer(case: dict) -> None:
    del case["expected"]["kept"]["4"]


def corrupt_counts(case: dict) -> None:
    case["expected"]["visual_tokens_per_layer"][-1] += 1


def corrupt_greedy(case: dict) -> None:
    case["expected"]["greedy"][3] += 1


def corrupt_last_kept(case: dict) -> None:
    corrupted = case["expected"]["repeat_last_kept"][4]
    corrupted[0] = next(i for i in range(100) if i not in corrupted)
    corrupted.sort()


def corrupt_parameter(case: dict) -> None:
    case["params"]["K"] += 1


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (corrupt_kept, "layer 3: 80 kept, golden 80"),
        (corrupt_unlisted_layer, "layer 4: 70 kept, golden 80"),
        (corrupt_counts, "visual_tokens_per_layer[7]: 50, golden 51"),
        (corrupt_greedy, "greedy[3]"),
        (corrupt_last_kept, "repeat_last_kept[4]"),
        (corrupt_parameter, "layer 2: 100 kept, golden 90"),
    ],
)
def test_any_wrong_value_of_a_language_model_case_is_found(change, shown, tmp_path, capsys):
    assert main([str(copy_llm(tmp_path, "seq-K2-R0.5-step10-in00", change))]) == 1
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("array", ["logits", "step_logits"])
@pytest.mark.parametrize("name", ["seq-K2-R0.5-step10-in00", "fastv-round-K2-R0.5-in00", "fastv-int-K2-R0.9-in00"])
def test_logits_are_compared_to_1e_4(array, name, tmp_path, capsys):
    folder = copy_llm(tmp_path, name)
    path = folder / "logits" / f"{name}.npz"
    assert main([str(folder)]) == 0
    rewrite(path, lambda arrays: arrays[array].reshape(-1).__setitem__(-1, arrays[array].reshape(-1)[-1] + 3e-4))
    assert main([str(folder)]) == 1
    assert f"{array}[" in capsys.readouterr().out
