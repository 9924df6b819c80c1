# Two commands do all the set-up: `make demo` (train, evaluate, predict on embedded data) and `make test`.
# PYTHON is any Python from 3.11 on; everything is installed into .venv here, nothing elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests side by side, each with one thread of arithmetic and up to 5 GB of memory.
JOBS ?= 2
READY := $(VENV)/.ready

.PHONY: help demo test test-browser fuzz check format bench gpu architectures lock clean

help:
	@echo "make demo    train, evaluate and predict on embedded data, in about three minutes"
	@echo "make test    run the test suite"
	@echo "make test-browser  run the tests of the web page alone; they need Chromium"
	@echo "make fuzz    damage files of every kind for a long time, with another seed every day; CASES=2000 of each"
	@echo "make check   formatting, lint, types, import rules, spelling"
	@echo "make format  mend formatting and what the linter can mend"
	@echo "make bench   measure against the networks as published: latency, training step and memory, reading of images"
	@echo "make gpu     what only a GPU can show, in ten minutes, into benchmarks/gpu.json; without one a dry run on the CPU"
	@echo "make architectures  measure the sizes and costs that overtone models lists, after a change of a family"
	@echo "make lock    write requirements.lock anew from pyproject.toml"

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "overtone needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)
	$(BIN)/overtone demo --overwrite

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-browser: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

# A failure names its seed: make fuzz SEED=20300 runs the same cases again.
CASES ?= 2000
SEED ?= $(shell expr $$(date +%s) / 86400)

fuzz: $(READY)
	OMP_NUM_THREADS=1 OVERTONE_FUZZ_CASES=$(CASES) OVERTONE_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -n $(JOBS) tests/fuzz

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python benchmarks/latency.py --json benchmarks/latency.json
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/harmonic_training.py
	$(BIN)/python benchmarks/training_overhead.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/serving.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --json benchmarks/gpu.json

architectures: $(READY)
	$(BIN)/python -m overtone.reports.measured_sizes

lock:
	$(PYTHON) -m pip install --quiet --upgrade uv
	$(PYTHON) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
