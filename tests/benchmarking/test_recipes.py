"""The recipes: they can be used, what a dry run tells, and the one without lmms-eval from the command to the table."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from experiments.benchmarking import command, recipe
from experiments.benchmarking.defaults import own_parameters, scaled
from experiments.benchmarking.named import BENCHMARKS, VISUAL_COT_SETS
from experiments.benchmarking.recipe import Recipe, RecipeError
from experiments.benchmarking.settings import Unreachable, settings_of
from pruning.glimpse import checkpoint
from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.modules import GlimpseModules
from tests.benchmarking.judge_server import Server
from tests.benchmarking.tiny_deep import save_qwen, write_visual_cot

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
NAMES = ["glimpseprune_free_form", "glimpseprune_short_form", "glimpseprune_vstar"]
NAMES += ["sequential_prune", "vispruner", "vispruner_figures"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments.benchmarking", *map(str, arguments)])
    command.main()


def test_there_is_one_for_every_table() -> None:
    assert [path.stem for path in RECIPES] == NAMES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_dry_run_counts(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run(monkeypatch, "dry", path, "--out", tmp_path, "--rate", "10")
    text, loaded = capsys.readouterr().out, recipe.load(path)
    questions = sum(BENCHMARKS[name].questions for name in loaded.benchmarks)
    answers = questions * len(loaded.settings)
    assert f"= {answers}\n" in text and loaded.title in text
    assert f"GPU hours: about {answers / 10 / 3600:.1f} on one" in text
    assert all(departure in text for departure in loaded.departures)


def test_without_a_measured_rate_a_dry_run_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run(monkeypatch, "run", ROOT / "recipes/vispruner.yaml", "--dry", "--out", tmp_path)
    assert "GPU hours: unknown; measure with `answer ... --limit 64`" in capsys.readouterr().out


def test_published_settings_are_the_presets(tmp_path: Path) -> None:
    found = {f"{one.method}/{one.label}": one for one in recipe.load(ROOT / "recipes/vispruner.yaml").settings}
    assert found["visionzip/tokens-64"].for_image(576, 32, {}).written() == {
        "dominant": 54,
        "contextual": 10,
        "keep": None,
    }
    assert found["vispruner/tokens-32"].for_image(576, 32, {}).written()["keep"] == 32
    assert found["fastv/tokens-64"].for_image(576, 32, {}).visual_tokens_per_layer(576, 32)[:3] == [576, 576, 30]
    assert found["sparsevlm/tokens-64"].counted == "after layers"
    with pytest.raises(Unreachable, match="published for 576 visual tokens; this image has 144"):
        found["vispruner/tokens-32"].for_image(144, 32, {})


def test_own_parameters_follow_the_depth_and_not_the_testbed() -> None:
    assert own_parameters("fastv", 28) == own_parameters("fastv", 40) == {"k": 2}
    assert own_parameters("sparsevlm", 32)["layers"] == [2, 6, 15]
    assert own_parameters("sparsevlm", 40)["layers"] == [2, 8, 19]
    assert own_parameters("sparsevlm", 28)["layers"] == [2, 5, 13]
    assert scaled((2, 6, 15), 32, 4) == [1, 2, 3]
    (setting,) = settings_of("sequential_prune", {"budgets": [0.4]}, "qwen2.5-vl-7b")
    method = setting.for_image(1000, 28, {})
    assert method.written()["k"] == 2 and method.written()["step"] == 10
    assert sum(method.visual_tokens_per_layer(1000, 28)) / 28 == pytest.approx(400, rel=0.05)


BASE = {
    "title": "A trial",
    "model": "llava-1.5-7b",
    "benchmarks": {"gqa": None},
    "methods": {"full": None},
    "batch_size": 2,
    "max_new_tokens": 8,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llava-1.5-7bb"}, "Did you mean 'llava-1.5-7b'"),
        ({"benchmarks": {"gqq": None}}, "unknown benchmark 'gqq'. Did you mean `gqa`?"),
        ({"methods": {"vispruner": {"tokens": [100]}}}, "vispruner has no setting for 100 tokens"),
        ({"methods": {"vispruner": None}}, "vispruner: give `tokens`, `budgets` or `settings`"),
        ({"methods": {"fastv": {"settings": {"a": {"layer": 2}}}}}, "fastv, a: fastv has no parameter 'layer'"),
        ({"methods": {"fastv": {"budgets": [0.5], "parameters": {"r": 0.5}}}}, "`r` follows from the budget"),
        ({"methods": {"fastw": {"budgets": [0.5]}}}, "unknown method 'fastw'"),
        ({"methods": {"fastv": {"budget": [0.5]}}}, "Extra inputs are not permitted"),
        ({"benchmarks": {"viscot_cub": None}}, "viscot_cub: a language model scores the answers"),
        ({"flops": "mine"}, "unknown convention of FLOPs 'mine'"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_a_bad_recipe_is_one_clear_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(BASE | changes))
    with pytest.raises(RecipeError, match=re.escape(message)):
        recipe.load(path)


def test_a_missing_recipe_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="There are: glimpseprune_free_form, .*vispruner_figures"):
        recipe.load(ROOT / "recipes/visprune.yaml")


def test_benchmarks_of_lmms_eval_name_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "answer", ROOT / "recipes/vispruner.yaml", "--out", tmp_path)
    assert "needs lmms-eval: `make setup-benchmarks`" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2"])
def test_a_bad_shard(text: str) -> None:
    with pytest.raises(ValueError, match="is not like 0/4"):
        command.shard_of(text)


def save_modules(folder: Path, model: Path) -> Path:
    """Random GlimpsePrune modules for a tiny Qwen2.5-VL of 28 layers."""
    from experiments.asking.models import load

    torch.manual_seed(0)
    loaded, _ = load(str(model), device="cpu")
    config = GlimpseConfig(
        reduce_layer=20,
        glimpse_layers=21,
        selected_visual_layers=(3, 2, 1, 0),
        use_attention_logits=True,
        attn_fuse_size=16,
        visual_cond_size=16,
        attn_fuse_num_heads=2,
    )
    checkpoint.save(GlimpseModules.for_model(loaded, config), folder)
    return folder


def test_free_form_from_the_command_to_the_table(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """GlimpsePrune's free-form recipe on its twelve sets, two questions each, with a stand-in for the judge."""
    monkeypatch.chdir(ROOT)
    model, data, out = save_qwen(tmp_path / "model"), tmp_path / "data", tmp_path / "out"
    modules = save_modules(tmp_path / "modules", model)
    for name in VISUAL_COT_SETS:
        write_visual_cot(data, name, 2, ((32, 32), (40, 24)))
    path = ROOT / "recipes/glimpseprune_free_form.yaml"
    options = ["--data", data, "--out", out, "--weights", model, "--modules", modules]
    run(monkeypatch, "run", path, *options, "--judge-url", f"http://127.0.0.1:{server.server_port}/v1")
    table = pd.read_csv(out / "tables/glimpseprune_free_form/table.csv", dtype=str, keep_default_na=False)
    assert len(table) == len(recipe.load(path).settings) and (table["viscot_gqa"] != "–").all()
    named = table.set_index("setting")["published: score, mean of 12 sets"]
    assert named["full"] == "0.761" and named["cap-0.111"] == "0.761"
    assert table.set_index("setting")["mean"]["full"] == "50.0", "the stand-in gives .5 for all that is not right"
    assert (out / "judge/Qwen2.5-32B-Instruct-GPTQ-Int8.jsonl").exists()
    # Everything is there now: nothing is asked again, of the model or of the judge.
    asked, written = len(server.requests), {file: file.stat().st_mtime_ns for file in out.rglob("part-*")}
    run(monkeypatch, "run", path, *options, "--judge-url", f"http://127.0.0.1:{server.server_port}/v1")
    assert len(server.requests) == asked
    assert written == {file: file.stat().st_mtime_ns for file in out.rglob("part-*")}
    # What was measured is what a dry run counts with.
    run(monkeypatch, "dry", path, "--out", out, "--modules", modules)
    assert re.search(r"rate: [\d.]+ answers a second, of \d+ answers in", capsys.readouterr().out)


def test_models_are_one_name_whatever_folder_their_weights_are_in() -> None:
    asked = Recipe.model_validate(BASE).asked()
    assert (asked.model_name, asked.image, asked.system) == ("llava-1.5-7b", "pad", "vicuna")


def test_recipes_are_plain_yaml_of_known_numbers() -> None:
    for path in RECIPES:
        published = recipe.load(path).published
        if published is not None:
            file = ROOT / f"data/published/{published.file}.csv"
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            assert published.metric in set(table["metric"])
            assert set(published.methods.values()) <= set(table["method"])
            assert {*published.benchmarks.values(), *published.settings.values()} <= set(table["setting"])
            assert json.dumps(published.model_dump())
