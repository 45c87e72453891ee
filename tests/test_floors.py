"""The plan of the house: who may import whom.

Every package is a pile of floors, the ground first. A module imports its own floor and those below it, never up; late
imports and those for type checkers count. `analysis` stands on `pruning`, `experiments` on both.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "pruning": ("models", "engine", "choosing", "glimpse", "methods", "registry", "paper_settings"),
    "experiments": (
        "named", "parameters", "recorded", "asking", "probing", "reports", "speed", "testbed", "gpu", "conformance",
        "stage",
    ),
    "analysis": ("attention", "figures"),
}  # fmt: skip


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name; a package's own name stands for its __init__."""
    found = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file
    return found


def imported(file: Path, known: set[str]) -> set[str]:
    """The project's modules that a file imports, late or only for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            # A package is imported for what its __init__ holds only where a name is not one of its modules.
            found |= inside if len(inside) == len(node.names) else inside | {node.module}
    return found & known


def graph(*packages: str) -> dict[str, set[str]]:
    """Who imports whom in these packages."""
    files = {name: file for package in packages for name, file in modules(package).items()}
    return {name: imported(file, set(files)) - {name} for name, file in files.items()}


def floor_of(name: str) -> int:
    """The floor of a module, the ground being 0; the stages of the pipeline and the statistics have no room."""
    package, room = name.split(".")[:2]
    floors = FLOORS[package]
    return floors.index(room) if room in floors else {"experiments": len(floors), "analysis": 0}[package]


@pytest.mark.parametrize("package", FLOORS)
def test_nobody_imports_upwards(package: str) -> None:
    for name, others in graph(package).items():
        for other in others if "." in name else ():
            if other != package:
                assert floor_of(other) <= floor_of(name), f"{name} imports {other}"


def test_nobody_imports_a_stage() -> None:
    stages = {name for name in modules("experiments") if name.count(".") == 1} - {"experiments.stage"}
    stages = {name for name in stages if name.split(".")[1] not in FLOORS["experiments"]}
    for name, others in graph("experiments").items():
        assert not others & stages, f"{name} imports the stage {others & stages}"


def test_figures_import_what_they_share_only() -> None:
    for name, others in graph("analysis").items():
        if name.startswith("analysis.figures.") and ".shared" not in name:
            assert all(".shared" in other for other in others), name


def test_no_module_imports_itself_through_others() -> None:
    left = graph("pruning", "analysis", "experiments")
    while ground := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in ground}
    assert not left, f"these import each other: {', '.join(left)}"


def test_packages_stand_on_one_another() -> None:
    below = {"pruning": set(), "analysis": {"pruning"}, "experiments": {"pruning", "analysis"}}
    for name, others in graph(*below).items():
        own = name.split(".")[0]
        assert {other.split(".")[0] for other in others} <= below[own] | {own}, name
