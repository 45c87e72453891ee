"""Asking a model: the model and its processor, questions as its inputs, and its answers under methods."""
