"""Hooks of MkDocs: the site holds what its pages link to, wherever that lies in the repository.

Pages link as they do on a forge, by paths in the repository (`../results/accuracy.csv`, `docs/methods.md`). Here every
such link is turned into one inside the site, and what it points to is added: README.md as the first page, other
Markdown files as pages, figures and CSV files as they are, notebooks as `make docs` has executed them.
"""

import os.path
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page, and everything that pages link to."""
    root = Path(config.config_file_path).parent
    waiting = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        source = root / path
        if not path.startswith("docs/"):
            executed = source.suffix == ".ipynb" and (root / "build" / path).exists()
            folder = root / "build" if executed else root
            if path == "README.md":
                files.append(File.generated(config, in_site(path), abs_src_path=str(source)))
            else:
                files.append(File(path, str(folder), config.site_dir, config.use_directory_urls))
        if source.suffix == ".md":
            found = {target(path, link) for _, link, _ in LINK.findall(FENCE.sub("", source.read_text("utf-8")))}
            new = {link for link in found if link and (root / link).is_file()} - seen
            seen |= new
            waiting += sorted(new)
    return files


def on_page_markdown(markdown: str, page: Page, **others: object) -> str:
    """Links by paths in the repository become links in the site."""
    here = in_repository(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        path = target(here, match[2])
        if path is None:
            return match[0]
        return match[1] + posixpath.relpath(in_site(path), posixpath.dirname(page.file.src_uri) or ".") + match[3]

    return LINK.sub(link, markdown)


def target(page: str, link: str) -> str | None:
    """The path in the repository that a page's relative link means; None for other addresses."""
    if re.match(r"[a-z]+:|/", link):
        return None
    return os.path.normpath(posixpath.join(posixpath.dirname(page), link))


def in_site(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def in_repository(uri: str) -> str:
    """The other way round, for pages."""
    if uri == "index.md":
        return "README.md"
    return f"docs/{uri}" if "/" not in uri and Path(__file__).with_name(uri).exists() else uri
