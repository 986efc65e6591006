# Every target sets up what it needs: a bare machine with Python 3.11 or 3.12 is enough.
# The first interpreter that runs and is of a version SiQ-VL supports.
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	"$$p" -c '$(SUPPORTED)' 2>/dev/null && echo "$$p" && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RECIPE ?= recipes/tiny.yaml
IMAGE  ?= siqvl:latest
TARGET ?= gpu
DOCKER ?= docker
# One for each of two cores; every one of them computes with one thread.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup pipeline test test-fast drills lint ui image image-test lock clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## create .venv and install SiQ-VL with its development tools

$(READY): pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
	  echo "SiQ-VL needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

pipeline: $(READY)  ## run all stages of RECIPE (default recipes/tiny.yaml) on this machine
	$(BIN)/pyflyte run workflows/full_pipeline.py full_pipeline --recipe $(RECIPE)

test: lint  ## lint, types and every test but the drills, in WORKERS processes (default 2)
	$(PYTEST)

lint: $(READY)  ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

test-fast: $(READY)  ## the unit tests alone
	$(PYTEST) -m "not integration"

drills: $(READY)  ## what takes too long for `make test`: more kills, broken rows, look-alikes; lmms-eval installed anew
	$(BIN)/python -m pytest -m drill

ui: $(READY)  ## open the MLflow page of this folder's runs at http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

image:  ## build the task image IMAGE (default siqvl:latest), TARGET cpu, gpu, serve or serve-gpu, with BUILD_ARGS
	$(DOCKER) build -f docker/Dockerfile --target $(TARGET) \
	  --build-arg GIT_SHA=$$(git describe --always --exclude='*' --abbrev=12 --dirty=.dirty) $(BUILD_ARGS) -t $(IMAGE) .
	@$(DOCKER) image inspect --format '{{.Size}}' $(IMAGE) \
	  | awk '{printf "$(IMAGE): %.2f GB\n", $$1 / 1e9}'

image-test: $(READY)  ## build target cpu, cold and warm, and run stages inside it (needs docker)
	$(BIN)/python -m tests.integration.image

lock:  ## pin what the images hold, docker/*.lock; LOCK_ARGS=--upgrade for the newest that fits
	PYTHON=$(PYTHON) docker/lock.sh $(LOCK_ARGS)

clean:  ## remove caches and outputs (keeps .venv, the MLflow store and what waits for it)
	@test ! -d outputs || find outputs -mindepth 1 -maxdepth 1 ! -name spool -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
