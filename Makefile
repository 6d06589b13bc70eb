# Everything a developer types. Each target builds its own environment in .venv first, from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: soak longlife failover flow demo test check lint types bench chaos sim sim-mutants clean apt install format
.DEFAULT_GOAL := check

demo: $(INSTALLED)
	$(BIN)/mesh demo

test: apt lint types
	$(BIN)/python -m pytest -q

# Quick: what should be green before every commit.
check: lint types
	$(BIN)/python -m pytest -q tests/tidy tests/core

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python -m bench

# Whole meshes from seeds, faults and all: `make sim SEEDS=2000`, or a range: `make sim SEEDS=500-1500`.
SEEDS ?= 300
sim: $(INSTALLED)
	$(BIN)/python -m tests.simulation $(if $(findstring -,$(SEEDS)),$(SEEDS),0-$(SEEDS))

# Takes one rule after the other out of a copy of the mesh: the simulation must notice each time.
sim-mutants: $(INSTALLED)
	$(BIN)/python -m tests.simulation.mutants

# Real processes under faults, about ten minutes each time; the reports become the tables of docs/reliability.md, all times together:
# `make chaos CHAOS_TIMES=3`. MESH_CHAOS_SEED and MESH_CHAOS_SECONDS as that page says.
CHAOS_TIMES ?= 1
chaos: $(INSTALLED)
	@$(MAKE) apt || echo "going on without what is missing: the report says what is left out" >&2
	rm -rf .mesh/chaos
	code=0; for time in $$(seq $(CHAOS_TIMES)); do MESH_CHAOS_TIME=$$time $(BIN)/python -m pytest -q -m chaos || code=1; done; \
	$(BIN)/python -m tests.chaos.report && exit $$code

# How long the mesh stands still when something dies; ends with 1 if it is longer than promised: `make failover FAILOVER_TIMES=5`.
FAILOVER_TIMES ?= 20
failover: $(INSTALLED)
	$(BIN)/python -m tests.faults.failover --times $(FAILOVER_TIMES)

# What docs/flow-control.md promises, on real processes under kills of the leader, and what a decision costs; ends with 1 if anything
# does not hold. `make flow SHOWS="rate turns"` for some of it.
SHOWS ?=
flow: $(INSTALLED)
	$(BIN)/python -m tests.faults.flow_shows --pictures docs $(SHOWS)
	$(BIN)/python -m bench.flow

# An hour of steady work while workers come and go; ends with 1 if anything has grown: `make soak SOAK_MINUTES=15`.
SOAK_MINUTES ?= 60
SOAK_RATE ?= 55
soak: $(INSTALLED)
	$(BIN)/python -m tests.longlife.soak --minutes $(SOAK_MINUTES) --rate $(SOAK_RATE) --pictures docs

# The figures of docs/longlife.md: 100,000 live runs, and a backlog of 1,000,000 starts.
longlife: $(INSTALLED)
	$(BIN)/python -m tests.longlife.recovery
	$(BIN)/python -m tests.longlife.backlog --picture docs/longlife-backlog.svg

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) apt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[engine,server,dev]'
	@touch $@

# Installs what tests/apt-packages.txt names and is missing when it may (root on Debian or Ubuntu), else says what to install.
apt:
	@command -v dpkg-query >/dev/null || exit 0; \
	missing=""; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing=" python3-venv"; \
	for package in $$(cat tests/apt-packages.txt); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q ' installed' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	else \
		echo "these packages are missing: sudo apt-get install$$missing" >&2; exit 1; \
	fi

clean:
	rm -rf $(VENV) .mesh .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find mesh sdk tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
