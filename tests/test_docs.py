"""The documentation holds: links and anchors lead somewhere, paths and modules exist, the README is short.

Only the standard library, and no site is built: `make docs` does that, strictly.
"""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README_BYTES = 10_000
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
SNIPPET = re.compile(r'^--8<-- "([^":]+)', re.MULTILINE)
MODULE = re.compile(r"-m ((?:experiments|analysis|pruning)(?:\.\w+)+)")
# A path in backticks: names between slashes, nothing that stands for something else (NAME, <stage>, *.csv).
PATH = re.compile(r"\.?[\w-]+(?:[./][\w.-]+)*/?")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
AT_THE_TOP = {path.name for path in ROOT.iterdir()}
LOOKS_LIKE_A_FILE = (".yaml", ".yml", ".toml", ".lock", ".md", ".cff")
# Paths that a page says are made by its reader.
TO_BE_MADE = re.compile(r"<!-- not in the repository: (.*?) -->")

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def ignored() -> list[str]:
    """What git ignores by a path of its own: outputs, which a fresh clone does not have."""
    lines = text_of(ROOT / ".gitignore").splitlines()
    return [line for line in lines if "/" in line and not line.startswith("#")] + [".venv"]


def anchors(markdown: str) -> set[str]:
    """Anchors of the headings, as MkDocs and forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", markdown), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            broken.append(link)
        elif anchor and anchor not in anchors(text_of(there)):
            broken.append(f"{link} (no such heading)")
    assert not broken


@page
def test_every_path_in_backticks_exists(page: Path) -> None:
    markdown = text_of(page)
    made = {path for group in TO_BE_MADE.findall(markdown) for path in group.split(", ")}
    missing = []
    for code in CODE.findall(FENCE.sub("", markdown)):
        path = code.split("::")[0]
        if not PATH.fullmatch(path) or PLACEHOLDER.search(path) or path in made:
            continue
        first = path.split("/")[0]
        names_a_file = first in AT_THE_TOP or ("/" not in path and path.endswith(LOOKS_LIKE_A_FILE))
        if names_a_file and not path.startswith(tuple(ignored())):
            missing += [] if (ROOT / path).exists() else [path]
    assert not missing


@page
def test_what_examples_import_exists(page: Path) -> None:
    markdown = text_of(page)
    made = {path for group in TO_BE_MADE.findall(markdown) for path in group.split(", ")}
    imports = [
        node
        for language, code in FENCE.findall(markdown)
        if language == "python"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("pruning", "analysis", "experiments")
    ]
    missing = [
        f"{node.module}.{alias.name}"
        for node in imports
        for alias in node.names
        if f"{str(node.module).replace('.', '/')}.py" not in made and not found(f"{node.module}.{alias.name}")
    ]
    documented = re.findall(r"^::: (\S+)", markdown, re.MULTILINE)
    assert not missing + [name for name in documented if not found(name)]


def found(name: str) -> bool:
    """Whether there is such a module, or such a name in one."""
    module, _, last = name.rpartition(".")
    return importlib.util.find_spec(name.split(".")[0]) is not None and (
        (ROOT / f"{name.replace('.', '/')}.py").exists()
        or (ROOT / name.replace(".", "/") / "__init__.py").exists()
        or hasattr(importlib.import_module(module), last)
    )


@page
def test_included_tables_and_modules_on_command_lines_exist(page: Path) -> None:
    markdown = text_of(page)
    missing = [path for path in SNIPPET.findall(markdown) if not (ROOT / path).exists()]
    for module in MODULE.findall(markdown):
        place = ROOT / module.replace(".", "/")
        if not place.with_suffix(".py").exists() and not (place / "__main__.py").exists():
            missing.append(module)
    assert not missing


@page
def test_python_blocks_are_python(page: Path) -> None:
    for language, code in FENCE.findall(text_of(page)):
        if language == "python":
            ast.parse(code)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


def test_the_example_in_the_readme_is_that_of_the_worked_example() -> None:
    def body(page: Path) -> list[str]:
        blocks = [code for language, code in FENCE.findall(text_of(page)) if "class LargestNorm" in code]
        lines = blocks[0].splitlines()
        return [line for line in lines[lines.index("class LargestNorm(KeepPerImage):") :] if line.startswith("    def")]

    assert body(ROOT / "README.md") == body(ROOT / "docs/worked-example.md") != []


def test_every_page_is_in_the_site_s_navigation() -> None:
    navigation = text_of(ROOT / "mkdocs.yml").split("\ntheme:")[0]
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"- {path.name}" not in navigation] == []


def test_every_figure_is_shown() -> None:
    shown = text_of(ROOT / "docs/figures.md")
    names = [path.stem for path in (ROOT / "figures").glob("*.png")]
    assert [name for name in names if f"](../figures/{name}.png)" not in shown] == []


def test_every_notebook_is_listed() -> None:
    listed = text_of(ROOT / "docs/notebooks.md")
    assert [path.name for path in (ROOT / "notebooks").glob("*.ipynb") if path.name not in listed] == []


def test_every_column_of_a_result_is_described() -> None:
    described = set(CODE.findall(text_of(ROOT / "results/README.md")))
    types = {"existence", "attribute", "relation", "counting", "reading", "carrier", "small_object", "where", "link"}
    types |= {"locate", "chain", "relay", "follow", "without", "gather"}
    for table in sorted([*(ROOT / "results").glob("*.csv"), *(ROOT / "results/ablation").glob("*.csv")]):
        columns = set(table.read_text(encoding="utf-8").partition("\n")[0].split(","))
        assert columns - types <= described, f"results/README.md lacks columns of {table.relative_to(ROOT)}"
