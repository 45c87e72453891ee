# make repro    run the whole pipeline: scenes, captures, evaluations, FLOPs, figures
# make test     format, lint, types and tests
# make figures  draw the figures again from the committed CSV files
# make train    train the embedded models again (hours on two cores)
# make lab      open the notebooks in JupyterLab
# make setup    the virtual environment alone; every target above does this first

.DEFAULT_GOAL := help
.PHONY: help setup lock repro test train figures lab

BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# The first Python >= 3.11 that runs and can make virtual environments; `make setup PYTHON=...` chooses another.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# torch comes from wherever pip is configured to look. On Linux that is usually the CUDA build, which also runs on a CPU
# but is some gigabytes larger: `make setup TORCH_INDEX=...` takes torch from another index, such as PyTorch's own ones
# for the CPU build or for one CUDA version (their addresses are on PyTorch's "Get started" page).
TORCH_INDEX ?=

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

setup: .venv/installed

$(BIN)/python:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer with its venv module is needed and was not found. Install it (on Debian and" \
		"Ubuntu: python3.11 and python3.11-venv), or name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv

# Written last, so that an interrupted installation is taken up again; a changed lock installs again.
.venv/installed: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --progress-bar off $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") \
		"$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --progress-bar off -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@if command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; \
	then echo "Note: this machine has an NVIDIA GPU, but the installed torch cannot use it. To choose another build:" \
		"rm -r .venv && make setup TORCH_INDEX=..." >&2; fi
	@touch $@

# The lock is what is installed here, without the local label of the torch build and what only CUDA builds bring.
lock: .venv/installed
	$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+.*//' \
		| grep -viE '^(pip|wheel|triton|nvidia|cuda)' > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock
	@touch .venv/installed

repro: setup
	$(BIN)/dvc repro

# DVC runs no frozen stage, not even by name: run their modules, then record what came out.
train: setup
	$(BIN)/python -m experiments.train
	$(BIN)/python -m experiments.train_qwen
	for run in scenes-llava scenes-llava-k2 scenes-llava-k3 scenes-llava-k5 scenes-qwen; do \
		$(BIN)/python -m experiments.train_glimpse $$run || exit 1; done
	$(BIN)/dvc commit --force train train_qwen train_glimpse

figures: setup
	$(BIN)/dvc repro --force --single-item figures

lab: setup
	$(BIN)/jupyter lab

# One thread for each of a few workers: tiny models gain nothing from more, and workers would fight over the cores.
test: export OMP_NUM_THREADS = 1
test: export HF_HUB_OFFLINE = 1
test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --nbmake tests $(wildcard notebooks/*.ipynb)
