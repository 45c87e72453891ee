"""Whether a model was left as it was."""

from torch import nn


def fingerprint(model: nn.Module) -> list:
    """Attributes and hooks of every module. Take it after a first call, at which transformers adds hooks of its own."""
    return [
        (name, sorted(module.__dict__), [list(hooks) for hooks in module.__dict__.values() if isinstance(hooks, dict)])
        for name, module in model.named_modules()
    ]
