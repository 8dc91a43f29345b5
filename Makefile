# `make demo`, `make smollm2`, `make test`, `make check`: each sets up .venv from the pinned set first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of 30,000 files a run imports a tenth: Python compiles those when it first needs them, and keeps
# that even where the shell forbids it, or every process would compile them anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# Where no GPU is found the CPU build of torch will do, a fifth of the size of the CUDA build:
# from the usual index where that has it, else from TORCH_INDEX. `make demo TORCH=torch` takes the
# usual index's ordinary build.
TORCH_CPU := torch==$(shell sed -n 's/^torch==//p' constraints.txt)+cpu
TORCH ?= $(if $(shell command -v nvidia-smi),torch,$(TORCH_CPU))
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo smollm2 test check format clean

demo: $(VENV)/.runtime
	$(BIN)/recalign run dpo4rec

# A real LLM that runs without a GPU, for the presets that name it; see docs/results.md.
smollm2: $(VENV)/.runtime
	$(BIN)/recalign fetch smollm2

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a run needs. torch first and alone: its CPU build must be there before anything asks for a
# newer one.
$(VENV)/.runtime: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) 2> $(VENV)/torch.log || $(PIP) --extra-index-url $(TORCH_INDEX) $(TORCH) || $(PIP) torch
	$(PIP) --editable '.[gguf]'
	touch $@

# What tests and checks need besides.
$(VENV)/.installed: $(VENV)/.runtime
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
