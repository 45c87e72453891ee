"""Which of the project's modules a file needs."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("pruning", "analysis", "experiments")
# They name and check things, but decide nothing that a stage writes.
NAMES_ONLY = (
    "experiments/parameters/",
    "experiments/stage.py",
    "experiments/figures.py",
    "pruning/__init__.py",
    "pruning/registry.py",
    "pruning/paper_settings.py",
)


@cache
def imported(file: str) -> frozenset[str]:
    """The project's modules that a file imports, as paths."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = name.replace(".", "/")
            for candidate in (f"{path}.py", f"{path}/__init__.py"):
                if name.split(".")[0] in CODE and (ROOT / candidate).exists():
                    found.add(candidate)
    return frozenset(found)


def needed(file: str) -> set[str]:
    """What a file imports, directly or not, except through what only names things."""
    found, waiting = set(), [file]
    while waiting:
        current = waiting.pop()
        if current not in found and not current.startswith(NAMES_ONLY) and not current.endswith("__init__.py"):
            found.add(current)
            waiting += imported(current)
    return found
