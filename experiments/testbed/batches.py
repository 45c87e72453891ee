"""Scenes drawn, rendered, described and packed ahead of the training loop, in worker processes."""
