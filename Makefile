# make repro    run the whole pipeline: scenes, captures, evaluations, FLOPs, figures, tables
# make test     format, lint, types and tests
# make figures  draw the figures again from the committed CSV files
# make train    train the embedded models again (hours on two cores)
# make lab      open the notebooks in JupyterLab
# make docs     the documentation as a site in build/site, with the notebooks executed
# make setup    the virtual environment alone; every target above does this first
# make lock     write requirements.lock from what is installed

.DEFAULT_GOAL := help
.PHONY: help setup lock repro test train figures lab docs

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
	@echo "== setup: a virtual environment in .venv"
	"$(PYTHON)" -m venv .venv

# What a failed installation lacks is in pip's own lines; these say what to look at first.
define INSTALL_FAILED
{ echo "make setup: pip could not install $(1). It needs an index that pip can reach (a network, or a mirror that pip is" \
	"configured for), a wheel for $$($(BIN)/python -V) on this system, and some gigabytes of disk. pip's lines above say which" \
	"of them is missing. After mending it, make setup goes on where it stopped." >&2; exit 1; }
endef

# Written last, so that an interrupted installation is taken up again; a changed lock installs again.
.venv/installed: requirements.lock pyproject.toml | $(BIN)/python
	@echo "== setup: what requirements.lock pins, into .venv"
	$(BIN)/python -m pip install --progress-bar off $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") \
		"$$(grep '^torch==' requirements.lock)" || $(call INSTALL_FAILED,torch)
	$(BIN)/python -m pip install --progress-bar off -r requirements.lock || $(call INSTALL_FAILED,requirements.lock)
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@command -v git >/dev/null || echo "Note: git was not found. make repro needs it: DVC works in a git repository." >&2
	@if command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; \
	then echo "Note: this machine has an NVIDIA GPU, but the installed torch cannot use it. To choose another build:" \
		"rm -r .venv && make setup TORCH_INDEX=..." >&2; fi
	@touch $@

# The lock is what is installed here, without the local label of the torch build and what only CUDA builds bring.
lock: .venv/installed
	@echo "== lock: requirements.lock from what is installed"
	$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+.*//' \
		| grep -viE '^(pip|wheel|triton|nvidia|cuda)' > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock
	@touch .venv/installed

repro: setup
	@echo "== repro: every stage of dvc.yaml whose inputs changed, then the short tables of README.md and docs/"
	$(BIN)/dvc repro
	$(BIN)/python -m experiments.readme_table

# DVC runs no frozen stage, not even by name: run their modules, then record what came out.
train: setup
	@echo "== train: the embedded models and GlimpsePrune's modules"
	$(BIN)/python -m experiments.train
	$(BIN)/python -m experiments.train_qwen
	for run in scenes-llava scenes-llava-k6 scenes-llava-k8 scenes-qwen; do \
		$(BIN)/python -m experiments.train_glimpse $$run || exit 1; done
	$(BIN)/dvc commit --force train train_qwen train_glimpse

figures: setup
	@echo "== figures: all of them again, from results/"
	$(BIN)/dvc repro --force --single-item figures figures_of_two figures_of_three figures_of_four

lab: setup
	@echo "== lab: JupyterLab on notebooks/"
	$(BIN)/jupyter lab

# MkDocs lives in an environment of its own, so that requirements.lock need not know it; ruff formats the signatures.
# Notebooks are executed again when they or what the pipeline made (dvc.lock) changed.
DOCS := build/docs-env
EXECUTED := $(patsubst notebooks/%,build/notebooks/%,$(wildcard notebooks/*.ipynb))

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DOCS)/installed $(EXECUTED)
	@echo "== docs: the site, into build/site; a broken link or a page that cannot be made is an error"
	$(DOCS)/bin/mkdocs build --strict
	@echo "== docs: open build/site/index.html"

$(DOCS)/installed: pyproject.toml | .venv/installed
	@echo "== docs: MkDocs and its plugins, as pyproject.toml's extra \`docs\` pins them, into $(DOCS)"
	$(BIN)/python -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --progress-bar off $$($(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])') \
		"$$(grep '^ruff==' requirements.lock)" \
		|| $(call INSTALL_FAILED,the extra docs)
	@touch $@

# Neither progress bars nor warnings, which name this machine's folders, belong on a page.
build/notebooks/%.ipynb: export TQDM_DISABLE = 1
build/notebooks/%.ipynb: export PYTHONWARNINGS = ignore
build/notebooks/%.ipynb: notebooks/%.ipynb dvc.lock | .venv/installed
	@echo "== docs: executing $<"
	@mkdir -p $(@D)
	$(BIN)/papermill --no-progress-bar --log-level WARNING $< $(@D)/.$(@F) && mv $(@D)/.$(@F) $@

# One thread for each of a few workers: tiny models gain nothing from more, and workers would fight over the cores.
test: export OMP_NUM_THREADS = 1
test: export HF_HUB_OFFLINE = 1
test: setup
	@echo "== test: format, lint, types, then tests and notebooks"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --nbmake tests $(wildcard notebooks/*.ipynb)
