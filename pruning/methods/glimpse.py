"""GlimpsePrune, by the name under which the pipeline finds methods; it lives in `pruning/glimpse`."""

from pruning.glimpse.method import GlimpsePrune

__all__ = ["GlimpsePrune"]
