# `make` says what there is. Everything needed is set up on the way: a fresh clone can start with
# `make demo` or `make test`. Python packages go to .venv, Jaeger to ~/.cache/k8s-tracing.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.set-up
C_FILES := $(wildcard _native/*.c _native/*.h)
# What needs no service and no root, and is done within a minute.
UNIT := $(wildcard tests/unit tests/property)

export PYTHON

.PHONY: help setup system-packages test-packages demo demo-dataplane test unit integration lint format bench clean

help: ## say what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install what is missing: system packages (apt), .venv, this package

system-packages:
	@tools/system-packages build run

test-packages: system-packages
	@tools/system-packages test

# The editable install compiles _native, so a change there installs again; Python files are used
# from where they lie.
$(STAMP): pyproject.toml $(wildcard _native/*) | $(BIN)/python system-packages
	@echo "setup: installing k8s-tracing and its Python packages into .venv (about a minute at first)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[otlp,agent,viewer,hotrod,dev]'
	@touch $@
	@echo "setup: done"

$(BIN)/python: | system-packages
	@echo "setup: making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

# In a terminal, `set -m` gives the demo Ctrl-C for itself: it ends in order, and make reports the
# demo's own exit status and not an interrupt. Elsewhere `exec` hands it the signals that make gets.
in_order = demo=($(BIN)/python $(1) $(ARGS)); \
	if [[ -t 0 ]]; then set -m; "$${demo[@]}"; exit $$?; else exec "$${demo[@]}"; fi

demo: setup ## run the HotROD demo and print one of its traces; ARGS=--once ends by itself
	@$(call in_order,examples/hotrod/demo.py)

demo-dataplane: setup ## the same behind HAProxy and nginx, with Services, on a node of network namespaces; needs root
	@tools/system-packages dataplane
	@$(call in_order,examples/hotrod/demo_dataplane.py)

# One after the other also under `make -j`: the tests need the whole machine.
test: setup test-packages ## lint, then every test, with real LTTng, Redis and Jaeger
	@$(MAKE) --no-print-directory lint
	@PYTHON=$(BIN)/python tools/run-tests $(ARGS)

unit: setup ## the tests that need no service, under a minute
	@$(BIN)/python -m pytest -ra $(UNIT) $(ARGS)

integration: setup test-packages ## all other tests
	@PYTHON=$(BIN)/python tools/run-tests $(addprefix --ignore=,$(UNIT)) $(ARGS)

lint: setup ## ruff, mypy --strict, clang-format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format: setup ## rewrite Python and C the way lint wants them
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_FILES)

bench: setup test-packages .venv/.bench ## what a span costs, and its way to Jaeger, against limits and other libraries
	@PYTHON=$(BIN)/python tools/build-jaeger >/dev/null
	@$(BIN)/python -m benchmarks.span_cost $(ARGS)
	@$(BIN)/python -m benchmarks.span_memory
	@$(BIN)/python -m benchmarks.relay_throughput
	@$(BIN)/python -m benchmarks.end_to_end_latency
	@$(BIN)/python -m benchmarks.process_cpu
	@$(BIN)/python -m benchmarks.hotrod_load
	@$(BIN)/python -m benchmarks.viewer_store
	@$(BIN)/python -m benchmarks.ingress_cost
	@if ((EUID == 0)); then \
	  $(BIN)/python -m benchmarks.service_flows && $(BIN)/python -m benchmarks.dataplane_accuracy && \
	  $(BIN)/python -m benchmarks.scheduler_cost; \
	else echo "bench: service_flows, dataplane_accuracy and scheduler_cost need root: left out"; fi

.venv/.bench: pyproject.toml | setup
	@echo "bench: installing what we are measured against"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

clean: ## remove .venv and what was built in the tree; Jaeger's cache stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
