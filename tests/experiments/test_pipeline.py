"""dvc.yaml: what re-runs when something changes, on real DVC in a temporary repository with a tiny model."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis import figures
from experiments.recorded import cells
from tests.experiments import workspace
from tests.experiments.imports import CODE, needed

ROOT = Path(__file__).parents[2]
DVC = Path(sys.executable).with_name("dvc")
# Methods are found by their names in params.yaml: an import does not tell which.
BY_NAME = ("pruning/methods", "pruning/glimpse", "pruning/engine", "pruning/choosing")
EVERY_METHOD = {"evaluate", "latency", "score_correlation"}


@cache
def pipeline() -> dict[str, Any]:
    """dvc.yaml's stages as DVC takes them, those of a `foreach` by their keys."""
    written = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    for variables in written["vars"]:
        parameters |= variables
    stages = {}
    for name, stage in written["stages"].items():
        values = stage.get("foreach", {"": ""})
        if isinstance(values, str):  # ${section.key}
            values = value_at(values.strip("${}"), parameters)
        if isinstance(values, list):
            values = {value: value for value in values}
        text = yaml.safe_dump(stage.get("do", stage))
        for key, item in values.items():
            known = parameters | {"key": key, "item": item}
            filled = re.sub(r"\$\{([\w.]+)\}", lambda found, known=known: str(value_at(found[1], known)), text)
            stages[f"{name}@{key}" if key else name] = yaml.safe_load(filled)
    return stages


def value_at(path: str, values: Any) -> Any:
    """What stands at a dotted path; what does not is left as it was asked for."""
    for part in path.split("."):
        values = values[part]
    return values


def code_of(stage: dict[str, Any]) -> list[str]:
    """What a stage depends on that is code."""
    return [path for path in stage["deps"] if path.startswith(CODE)]


@pytest.mark.parametrize("name", pipeline())
def test_a_stage_depends_on_the_rooms_that_it_imports_and_on_no_others(name: str) -> None:
    stage = pipeline()[name]
    module, *arguments = stage["cmd"].removeprefix("python -m ").split()
    roots = {module.replace(".", "/") + ".py"}
    if name == "ablation":
        grids = yaml.safe_load((ROOT / "params.yaml").read_text())["ablation"]["grids"]
        roots |= {f"pruning/methods/{method}.py" for method in grids}
    if name.startswith("figures"):
        roots = {f"analysis/figures/{arguments[0]}.py"}
    modules = set().union(*(needed(root) for root in roots))
    rooms = code_of(stage)
    missing = [path for path in modules if not any(Path(path).is_relative_to(room) for room in rooms)]
    assert not missing, f"stage {name} of dvc.yaml imports {sorted(missing)} but does not list their rooms under deps"
    spare = [
        room
        for room in rooms
        if not room.startswith(BY_NAME) and not any(Path(path).is_relative_to(room) for path in modules)
    ]
    assert not spare, f"stage {name} of dvc.yaml lists {spare} under deps, which it does not import"


def test_a_figure_depends_on_what_it_reads() -> None:
    for name, stage in pipeline().items():
        if not name.startswith("figures"):
            continue
        figure = importlib.import_module(f"analysis.figures.{name.partition('@')[2]}")
        read = {f"results/{file}" for file in figure.INPUTS}
        read |= {str(getattr(figure, beside)) for beside in ("PUBLISHED", "IMAGES") if hasattr(figure, beside)}
        assert {path for path in stage["deps"] if not path.startswith(CODE)} == read, name


def test_every_figure_is_drawn() -> None:
    assert {name.partition("@")[2] for name in pipeline() if name.startswith("figures")} == set(figures.names())


def test_cells_are_kept_under_the_rooms_that_decide_them() -> None:
    rooms = {room for room in code_of(pipeline()["ablation"]) if not room.endswith(".py")}
    assert rooms == set(cells.ROOMS)
    whole = code_of(pipeline()["evaluate"])
    assert all(any(Path(room).is_relative_to(dep) for dep in whole) for room in cells.ROOMS)


def test_a_new_method_concerns_the_stages_that_show_every_method_only() -> None:
    new = Path("pruning/methods/largest_norm.py")
    concerned = {name for name, stage in pipeline().items() if any(new.is_relative_to(dep) for dep in stage["deps"])}
    assert concerned == EVERY_METHOD


def test_methods_that_a_stage_names_are_those_of_the_parameters() -> None:
    parameters, stages = yaml.safe_load((ROOT / "params.yaml").read_text()), pipeline()
    for name, section in (("free_form", "free_form"), ("efficiency", "efficiency"), ("second_model", "second_model")):
        for method in parameters[section]["methods"]:
            file = "pruning/glimpse" if method == "glimpse" else f"pruning/methods/{method}.py"
            assert file in stages[name]["deps"], f"stage {name} runs {method}"
    asked = {f"evaluate.methods.{method}" for method in parameters["free_form"]["methods"]}
    assert asked <= set(stages["free_form"]["params"])


def test_every_path_in_the_pipeline_is_code_or_another_stage_s_output() -> None:
    stages = pipeline()
    outputs = [next(iter(out)) if isinstance(out, dict) else out for s in stages.values() for out in outs_of(s)]
    for name, stage in stages.items():
        for path in stage["deps"]:
            is_output = any(Path(out).is_relative_to(path) or Path(path).is_relative_to(out) for out in outputs)
            assert is_output or (ROOT / path).exists(), f"stage {name} depends on {path}, which nothing makes"


def outs_of(stage: dict[str, Any]) -> list[Any]:
    return [*stage.get("outs", []), *stage.get("metrics", [])]


class Repository:
    """A temporary clone's worth of code with DVC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = (
            os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "DVC_NO_ANALYTICS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            | {
                f"GIT_{role}_{field}": "tests@localhost"
                for role in ("AUTHOR", "COMMITTER")
                for field in ("NAME", "EMAIL")
            }
        )

    def run(self, *command: str | Path) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, text=True, capture_output=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(DVC, *arguments)

    def changed(self) -> set[str]:
        """Stages that the next `dvc repro` would run."""
        return set(json.loads(self.dvc("status", "--json")))

    def edit(self, file: str) -> None:
        path = self.folder / file
        path.write_text(path.read_text() + "\n# edited\n")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Three methods on a model that is not the default: evaluated, counted and tabulated by `dvc repro tables`."""
    folder = workspace.make(tmp_path_factory.mktemp("repository"), budgets=[1.0, 0.5])
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    repository = Repository(folder)
    repository.run("git", "init", "-q")
    repository.dvc("init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    shutil.copytree(ROOT / "data/published", folder / "data/published")
    # What the stages before would have made; the embedded model is not the one that is evaluated.
    shutil.copy(folder / "data/scenes/evaluation.parquet", folder / "data/scenes/validation.parquet")
    shutil.copytree(folder / "tiny", folder / "data/models/scenes-llava")
    (folder / "results").mkdir()
    (folder / "results/training.csv").write_text("phase,step\n")
    repository.dvc("commit", "-q", "--force", "scenes", "train")
    repository.dvc("repro", "-q", "tables")
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-q", "-m", "evaluated")
    return repository


@pytest.fixture
def clean(repository: Repository) -> Iterator[Repository]:
    yield repository
    repository.run("git", "checkout", "-q", ".")


def test_another_model_goes_through_the_same_stages(clean: Repository) -> None:
    lines = (clean.folder / "results/tables/accuracy.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["full", "random", "fastv"]
    assert "of tiny on scenes, n = 8" in lines[-1]
    shown = json.loads(clean.dvc("metrics", "show", "--json"))[""]["data"]["results/metrics.json"]["data"]
    assert set(shown["all"]) == {"full", "random", "fastv"}
    clean.dvc("plots", "show", "-o", "plots")
    page = (clean.folder / "plots/index.html").read_text()
    assert "Accuracy against the share" in page and page.count('"method": "random"') == 1


def test_small_results_are_for_git_and_predictions_for_the_cache(clean: Repository) -> None:
    tracked = clean.run("git", "ls-files", "results").split()
    assert {"results/accuracy.csv", "results/flops.csv", "results/metrics.json"} < set(tracked)
    assert not [path for path in tracked if "predictions" in path or "parts" in path]


def test_a_second_run_does_nothing(clean: Repository) -> None:
    assert "Running stage" not in clean.dvc("repro", "tables")


def test_a_method_s_parameter_concerns_its_own_answers_only(clean: Repository) -> None:
    parameters = yaml.safe_load((clean.folder / "params.yaml").read_text())
    parameters["evaluate"]["methods"]["fastv"]["k"] = 1
    workspace.write_parameters(clean.folder, parameters)
    assert {"evaluate", "flops", "accuracy"} < clean.changed()
    assert answered_anew(clean) == {"fastv"}


def answered_anew(repository: Repository) -> set[str]:
    """The methods that the next `dvc repro evaluate` gives new answers of."""
    before = set((repository.folder / "results/parts").rglob("*.parquet"))
    repository.dvc("repro", "-q", "evaluate")
    return {path.parent.name for path in set((repository.folder / "results/parts").rglob("*.parquet")) - before}


@pytest.mark.parametrize(
    ("file", "methods"),
    [
        ("pruning/methods/full.py", {"full"}),
        ("pruning/methods/dart.py", set()),
        ("pruning/engine/engine.py", {"full", "random", "fastv"}),
    ],
)
def test_an_edited_method_is_answered_anew_alone(clean: Repository, file: str, methods: set[str]) -> None:
    clean.edit(file)
    assert answered_anew(clean) == methods


def test_an_edited_figure_is_drawn_anew_alone(clean: Repository) -> None:
    drawn = [f"figures@{name}" for name in ("accuracy_against_budget", "accuracy_against_flops")]
    clean.dvc("repro", "-q", *drawn)
    clean.edit("analysis/figures/accuracy_against_budget.py")
    changed = set(json.loads(clean.dvc("status", "--json", *drawn)))
    assert changed == {"figures@accuracy_against_budget"}


def test_an_experiment_changes_a_parameter_for_one_run(clean: Repository) -> None:
    clean.dvc("exp", "run", "-q", "-S", "evaluate.budgets=[0.25]", "evaluate")
    cells = json.loads((clean.folder / "results/predictions/random.json").read_text())
    assert [cell["budget"] for cell in cells] == [0.25]
