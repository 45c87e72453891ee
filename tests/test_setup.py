"""pyproject.toml, requirements.lock, environment.yml and .gitignore agree with each other and with the code."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
}
PACKAGES = ("pruning", "analysis", "experiments")
# The one room that needs another environment, and what of it.
APART = ("experiments/lmms", "lmms_eval")
# Where the lock was made; other systems and versions of Python leave out or add a few packages.
LOCKED_ON = {"python_version": "3.11", "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(parsed.name): parsed for parsed in map(Requirement, lines)}


def needed(direct: dict[str, Requirement]) -> set[str]:
    """What `direct` brings with it, by the metadata of what is installed, without what only CUDA builds need."""
    found: set[tuple[str, str]] = set()
    waiting = [(name, extra) for name, parsed in direct.items() for extra in ("", *parsed.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        found.add((name, extra))
        for parsed in map(Requirement, importlib.metadata.requires(name) or []):
            if parsed.marker is None or parsed.marker.evaluate({**LOCKED_ON, "extra": extra}):
                waiting += [(canonicalize_name(parsed.name), option) for option in ("", *parsed.extras)]
    return {name for name, _ in found}


def imported(folder: str) -> Iterator[str]:
    """Top-level names of what the files of a folder import, but for the room apart."""
    for file in (ROOT / folder).rglob("*.py"):
        if file.is_relative_to(ROOT / APART[0]):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.split(".")[0]


def test_the_lock_pins_every_dependency_and_nothing_else():
    direct = requirements(PROJECT["dependencies"] + EXTRAS["dev"])
    required = needed(direct)
    assert required - LOCKED.keys() == set(), "missing from requirements.lock: make lock"
    assert LOCKED.keys() - required == set(), "in requirements.lock, but nothing needs it"
    for name, parsed in direct.items():
        assert parsed.specifier.contains(LOCKED[name]), f"{name}: the lock has {LOCKED[name]}, pyproject {parsed}"


def test_the_lock_has_no_build_of_one_machine():
    for name, version in LOCKED.items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}=={version}"


def test_what_is_installed_here_is_what_the_lock_says():
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in LOCKED}
    assert installed == LOCKED


def test_environment_yml_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = [line for line in environment["dependencies"] if str(line).startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert pip[0] == "-r requirements.lock"
    for extra in Requirement(f"project{pip[1].removeprefix('-e .')}").extras:
        assert extra in EXTRAS


@pytest.mark.parametrize("package", PACKAGES)
def test_the_code_imports_declared_core_dependencies_only(package):
    of_distribution = importlib.metadata.packages_distributions()
    outside = set(imported(package)) - set(sys.stdlib_module_names) - set(PACKAGES)
    brought = {canonicalize_name(name) for module in outside for name in of_distribution.get(module, [module])}
    assert brought <= requirements(PROJECT["dependencies"]).keys()


def test_one_room_needs_lmms_eval_and_nothing_needs_that_room():
    room, package = APART
    texts = {file: file.read_text() for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")}
    inside = {file for file in texts if file.is_relative_to(ROOT / room)}
    assert any(f"import {package}" in texts[file] for file in inside)
    for file in texts.keys() - inside:
        assert f"import {package}" not in texts[file] and f"from {package}" not in texts[file], file
        assert "from experiments.lmms" not in texts[file] and "import experiments.lmms" not in texts[file], file
    (benchmarks,) = requirements(EXTRAS["benchmarks"]).values()
    pinned = dict(line.split("==") for line in (ROOT / "requirements-benchmarks.lock").read_text().split())
    assert benchmarks.specifier.contains(pinned[package])
    assert not {canonicalize_name(name) for name in pinned} & LOCKED.keys() - {"setuptools"}, "of the core's own lock"


def test_imports_point_one_way():
    assert not set(imported("pruning")) & {"analysis", "experiments"}
    assert not set(imported("analysis")) & {"experiments"}


@pytest.mark.parametrize(
    "kept",
    [
        "results/accuracy.csv",
        "results/attention_shift.csv",
        "figures/accuracy_against_flops.png",
        "data/scenes/evaluation.parquet",
        "data/models/scenes-llava/model.safetensors",
        "data/models/scenes-llava/tokenizer.json",
        "dvc.lock",
        "requirements.lock",
        ".dvc/config",
    ],
)
def test_git_keeps_what_a_fresh_clone_needs(kept):
    assert ignored(kept) == [], "listed in a .gitignore"


def test_git_ignores_what_is_made_here():
    made = [
        ".venv/bin/python",
        "results/predictions/fastv.parquet",
        "figures/accuracy_against_flops.pdf",
        ".mypy_cache/x",
        "pruning/__pycache__/x.pyc",
    ]
    assert ignored(*made) == made


def ignored(*paths: str) -> list[str]:
    """Those of the paths that git ignores."""
    command = ["git", "check-ignore", "--no-index", *paths]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode > 1:
        pytest.skip("not a git repository")
    return found.stdout.split()
