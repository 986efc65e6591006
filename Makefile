# Every target sets up what it needs: a bare machine with Python 3.11 or 3.12 is enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RECIPE ?= recipes/tiny.yaml
IMAGE  ?= siqvl:latest
TARGET ?= gpu

.DEFAULT_GOAL := help
.PHONY: help setup pipeline test test-fast lint ui image clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## create .venv and install SiQ-VL with its development tools

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"SiQ-VL needs Python 3.11 or 3.12, $(PYTHON) is {v[0]}.{v[1]}: run make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

pipeline: $(READY)  ## run all stages of RECIPE (default recipes/tiny.yaml) on this machine
	$(BIN)/pyflyte run workflows/full_pipeline.py full_pipeline --recipe $(RECIPE)

test: $(READY)  ## lint, type check and every test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/python -m pytest

test-fast: $(READY)  ## the unit tests alone
	$(BIN)/python -m pytest -m "not integration"

ui: $(READY)  ## open the MLflow page of this folder's runs at http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

image:  ## build the task image IMAGE (default siqvl:latest), TARGET cpu or gpu
	docker build -f docker/Dockerfile --target $(TARGET) \
	  --build-arg GIT_SHA=$$(git rev-parse --short=12 HEAD) -t $(IMAGE) .

clean:  ## remove caches and outputs (keeps .venv and the MLflow store)
	rm -rf outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis
