"""The one main of all stages: the command line, params.yaml, and one clear error for what can be mended there."""

import argparse
from collections.abc import Callable
from typing import TypeVar

from experiments.parameters.load import load_parameters

Entry = TypeVar("Entry")


def command(
    text: str | None,
    write: Callable[..., None],
    *,
    argument: tuple[str, str] | None = None,
    any_number: bool = False,
    try_methods: bool = True,
) -> Callable[[], None]:
    """A stage's `main`.

    Args:
        text: the module's own, shown by --help.
        write: does the stage's work, given the parameters and, where there is one, the argument.
        argument: its name and help.
        any_number: whether it may be given several times or not at all; `write` then gets a list.
        try_methods: see `load_parameters`.
    """

    def main() -> None:
        parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if argument is not None:
            parser.add_argument(argument[0], help=argument[1], nargs="*" if any_number else None)
        given = list(vars(parser.parse_args()).values())
        try:
            write(load_parameters(try_methods=try_methods), *given)
        except (ValueError, TypeError, FileNotFoundError) as error:
            parser.exit(1, f"error: {error}\n")

    return main


def chosen(kind: str, name: str, section: str, entries: dict[str, Entry]) -> Entry:
    """The entry of that name of a section of params.yaml.

    Raises:
        ValueError: there is none.
    """
    if name not in entries:
        raise ValueError(f"{kind} {name!r} is not in params.yaml's {section}: {', '.join(entries) or 'none is there'}")
    return entries[name]
