"""Hooks on the modules of an unmodified model that catch what they compute."""

from typing import Any


class Hooks:
    """Hooks on instances, and the tensors that they caught of the latest run."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def forget(self) -> None:
        """Let go of the tensors."""
        raise NotImplementedError

    def detach(self) -> None:
        """Take the hooks off; the tensors of the latest run stay."""
        for handle in self._handles:
            handle.remove()

    def remove(self) -> None:
        """Take the hooks off and let go of the tensors."""
        self.detach()
        self.forget()
