# `make` lists the targets. Everything runs from .venv, which `make setup` makes from nothing.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-audio demo-llm test test-all test-slurm test-browser check gpu speech lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: .venv/installed ## make .venv with the pinned packages and mmtok itself

.venv/installed: requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# What `lock` needs, too, which must not need the packages of an older lock.
$(BIN)/uv:
	@command -v $(PYTHON) >/dev/null || { echo "mmtok needs Python 3.11 or newer: set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mmtok needs Python 3.11 or newer: set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

demo: setup ## real pictures to a trained, measured image tokenizer: about 10 minutes on 2 cores
	$(BIN)/python examples/demo.py

demo-audio: setup ## real speech to a trained, measured codec: about 15 minutes on 2 cores
	$(BIN)/python examples/demo_audio.py

demo-llm: setup ## pictures, sounds and text in one small language model: about 40 minutes on 2 cores
	$(BIN)/python examples/llm/run.py

test: setup ## the fast tests: under 10 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: setup ## the slow tests too
	$(BIN)/python -m pytest -m 'not gpu and not slurm'

test-slurm: setup ## jobs on real SLURM daemons on this machine; installs them (Debian, root), about 10 minutes
	@command -v slurmctld slurmd munged sbatch > /dev/null || apt-get install -y --no-install-recommends slurm-wlm munge
	$(BIN)/python -m pytest -m slurm --durations=0 tests/slurm

test-browser: setup ## the report in a real Chromium, with axe; installs them (Debian, root)
	@command -v chromium > /dev/null || apt-get install -y --no-install-recommends chromium
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[browser]'
	$(BIN)/python -m pytest -m browser tests/mmtok/report

check: setup ## format, lint and types: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

gpu: setup ## what needs a CUDA device: 25 minutes at most a call, resumable; PICTURES=... SOUNDS=... to train on
	$(BIN)/python -m benchmarks.gpu $(if $(PICTURES),--pictures $(PICTURES)) $(if $(SOUNDS),--sounds $(SOUNDS))

speech: setup ## PESQ and DNSMOS, which evaluation reports as absent otherwise; needs a C compiler
	$(BIN)/uv pip install --python $(BIN)/python -e '.[speech]'

lock: $(BIN)/uv ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --extra all --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock

clean: ## remove the environment and caches (never runs or data)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
