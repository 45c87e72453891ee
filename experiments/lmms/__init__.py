"""What needs lmms-eval: its tasks as questions, its scores of stored answers, and this project as a model of it.

Runs in the environment of `make setup-benchmarks`; no other room imports this one, nor lmms-eval.
"""
