# Every target first updates .venv, which takes no time if it is up to date.
PYTHON ?= python3
OUTPUT ?= demo
BAG ?=
IMAGES ?=
VENV := .venv/bin
ACTIVATE := . $(VENV)/ros_env.sh &&

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

setup: ## Create or update .venv
	@$(PYTHON) dev/setup_env.py

demo: setup ## Detect with the real node and draw the results; [BAG=... | IMAGES=...] [OUTPUT=demo]
	@$(ACTIVATE) python -m cgdet_ros.tools.demo $(if $(BAG),--bag '$(BAG)') $(if $(IMAGES),--images '$(IMAGES)') --output '$(OUTPUT)'

test: lint ## Check style and types, then run all tests that this machine supports
	@$(ACTIVATE) python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

lint: setup ## Check style and types
	@$(VENV)/ruff check --output-format concise .
	@$(VENV)/mypy

clean: ## Remove .venv, caches and build output
	rm -rf .venv build install log *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
