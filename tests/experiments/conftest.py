"""Stages run by name, as from the command line."""

import sys

import pytest


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's main without arguments, unless a test gives some: pytest's own are none of its business."""
    monkeypatch.setattr(sys, "argv", ["stage"])
