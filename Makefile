# SPDX-License-Identifier: Apache-2.0
# Everything a developer does, and what CI runs. Needs make and a Python 3; brings the rest into .venv and .uv.

# Some environments forbid bytecode; LeRobot's imports then take twice as long, every time.
unexport PYTHONDONTWRITEBYTECODE
# Rendering without a display; MuJoCo looks for one otherwise.
export MUJOCO_GL ?= egl

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
SOURCES := src tests scripts examples benchmarks integrations fuzz

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint types layers spelling docs docs-check bench fuzz soak wheels lock graphics clean clean-all

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

setup: $(STAMP) ## Create .venv with everything the other targets need

$(STAMP): constraints.txt pyproject.toml .python-version scripts/environment.py
	@$(PYTHON) scripts/environment.py
	@touch $@

demo: $(STAMP) graphics ## Watch a simulated arm do its task over a policy server; ARGS="--episodes 3"
	@$(BIN)/pi05-websocket demo $(ARGS)

test: $(STAMP) graphics ## Run all tests and report coverage; STEPS="core sim lerobot interop soak base-install", ARGS="-k name"
	@$(BIN)/python scripts/run_tests.py $(STEPS) $(if $(ARGS),-- $(ARGS))

check: format-check lint types layers spelling docs-check test ## Everything CI checks, tests last

format: $(STAMP) ## Format the code
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix-only --quiet $(SOURCES)

.PHONY: format-check
format-check: $(STAMP)
	@$(BIN)/ruff format --check $(SOURCES)

lint: $(STAMP) ## Look for mistakes (ruff)
	@$(BIN)/ruff check $(SOURCES)

types: $(STAMP) ## Check the types (mypy --strict)
	@$(BIN)/mypy

layers: $(STAMP) ## Check who may import whom (import-linter)
	@$(BIN)/lint-imports --no-logo

spelling: $(STAMP) ## Check the spelling (codespell)
	@$(BIN)/codespell $(SOURCES) docs *.md Makefile pyproject.toml

docs: $(STAMP) ## Write the generated reference pages and check all links
	@$(BIN)/python scripts/docs.py

docs-check: $(STAMP)
	@$(BIN)/python scripts/docs.py --check

bench: $(STAMP) graphics ## Measure success against distance, an hour; goes on where it was interrupted; ARGS="--links wan"
	@$(BIN)/pi05-websocket bench latency --full $(ARGS)

bench-round-trip: $(STAMP) ## Measure the round trip against OpenPI's own client and server; ARGS="--json FILE"
	@$(BIN)/python benchmarks/round_trip.py $(ARGS)

fuzz: $(STAMP) ## Look for bytes that break a parser, a minute; ARGS="--minutes 60 --target codec --keep"
	@PYTHONPATH=. $(BIN)/python -m fuzz $(ARGS)

soak: $(STAMP) ## Let robots and servers run with faults, 20 minutes, and judge what grows; ARGS="--minutes 480"
	@$(BIN)/python benchmarks/soak.py $(ARGS)

wheels: $(STAMP) ## Ask the index for wheels for ARM, macOS and Windows; ARGS="lerobot" for an extra's
	@$(BIN)/python scripts/wheels.py $(ARGS)

lock: ## Renew constraints.txt
	@$(PYTHON) scripts/lock.py

graphics: $(STAMP) ## Say whether the simulated arm can render here
	@$(BIN)/python scripts/graphics.py

clean: ## Remove caches and build results
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean ## Remove .venv and .uv too
	@rm -rf .venv .uv
