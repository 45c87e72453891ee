"""Agreement with the authors' implementations: `python -m experiments.conformance tests/golden`."""
