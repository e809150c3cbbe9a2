# Every target first updates .venv, which takes no time if it is up to date. The demo needs only a
# part of it, without PyTorch.
PYTHON ?= python3
OUTPUT ?=
BAG ?=
TOPIC ?=
IMAGES ?=
MODEL ?=
RATE ?=
VENV := .venv/bin
ACTIVATE := . $(VENV)/ros_env.sh &&

.DEFAULT_GOAL := help
.PHONY: help setup runtime demo test lint clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: ## Create or update .venv, with PyTorch for training and tests
	@$(PYTHON) dev/setup_env.py

runtime: ## Create or update the part of .venv that the demo and the node need
	@$(PYTHON) dev/setup_env.py --runtime

demo: runtime ## Detect with the real node, draw the results; [BAG= [TOPIC=] | IMAGES=] [MODEL=] [RATE=] [OUTPUT=]
	@$(ACTIVATE) python -m cgdet_ros.tools.demo $(if $(BAG),--bag '$(BAG)') $(if $(TOPIC),--topic '$(TOPIC)') \
	  $(if $(IMAGES),--images '$(IMAGES)') $(if $(MODEL),--model '$(MODEL)') \
	  $(if $(RATE),--rate '$(RATE)') $(if $(OUTPUT),--output '$(OUTPUT)')

# In the order of test/conftest.py; with bytecode, as tests start hundreds of programs.
test: lint ## Check style and types, then run all tests that this machine supports
	@$(ACTIVATE) PYTHONDONTWRITEBYTECODE= python -m pytest -q -n auto --maxprocesses 4 \
	  --dist loadfile --no-loadscope-reorder

lint: setup ## Check style and types
	@$(VENV)/ruff check --output-format concise .
	@$(VENV)/mypy

clean: ## Remove .venv, caches and build output
	rm -rf .venv build install log *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
