# Holdtrue. `make help` lists the targets; each makes what it needs, on a machine with Python 3.11+ and git.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The newest supported interpreter at hand, unless PYTHON says which.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
AZURITE := build/azurite/node_modules/azurite/package.json
WORKERS ?= 3
SECONDS ?= 600
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help run stale-running test lint types bench soak mutants faults-table docs lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## The main job: a job started every second, two workers, SIGKILL at random; then the proof
	@$(BIN)/python -m examples.every_minute.storm $(ARGS)

stale-running: $(READY) $(AZURITE) ## The known failure of Azure Storage hubs, shown and cured, on an emulator of its own
	@$(BIN)/python -m examples.stale_running $(ARGS)

test: lint types $(AZURITE) ## Lint, strict types, and the whole test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(READY) ## Ruff over everything
	@$(BIN)/python -m ruff check src tests examples bench tools

types: $(READY) ## Strict mypy over the package
	@$(BIN)/python -m mypy

bench: $(READY) $(AZURITE) ## The benchmarks, peers beside us in the same run; then those on Azure Storage, .NET beside us
	@$(BIN)/python -m bench $(ARGS)
	@$(if $(ARGS),true,$(BIN)/python -m bench azure)

soak: $(READY) $(AZURITE) ## New seeds of the simulation for SECONDS, the disk, storms of 200 kills, a lock kept for 90 s
	@$(BIN)/python tests/simulation/soak.py $(SECONDS)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --whole tests/conformance tests/simulation/test_settling.py -k 'azurite or settling'
	@$(BIN)/python -m pytest -q --whole tests/dotnet/test_blob_leases.py
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --whole tests/dotnet/test_hand_over.py
	@$(BIN)/python -m tests.unit.sqlite_store.disk_search
	@$(BIN)/python -m tests.faults.matrix
	@$(BIN)/python -m tests.e2e.storm --kills 200
	@$(BIN)/python -m examples.every_minute.storm --all --kills 200 $(ARGS)
	@$(BIN)/python -m tests.azurite.held_lock 90

mutants: $(READY) ## Defects put into copies of the sources: the simulation must find each
	@$(BIN)/python tests/simulation/mutants.py

faults-table: $(READY) $(AZURITE) ## Every request × every fault, the real .NET provider beside us: docs/reliability.md
	@$(BIN)/python -m tests.faults.table $(ARGS)

docs: $(READY) ## Draw the generated parts of the docs anew from the code
	@$(BIN)/python -m tools.draw_docs

$(AZURITE): tools/install_azurite.py | $(READY)
	@$(BIN)/python tools/install_azurite.py && touch $@

lock: ## Pin requirements/test.txt anew from requirements/test.in
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip --disable-pip-version-check -q install -r requirements/test.in
	@build/lock/bin/python -m pip --disable-pip-version-check -q install --no-deps vega-datasets
	@{ sed -n '/^#/p' requirements/test.txt; build/lock/bin/python -m pip --disable-pip-version-check freeze \
	  | grep -v '^asyncio==' | sed "s/^\(uvloop==.*\)/\1; sys_platform != 'win32'/"; } > build/lock.txt
	@mv build/lock.txt requirements/test.txt && rm -rf build/lock

clean: ## Remove what was made: the virtual environment, builds and caches
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment: all versions pinned, then this package itself, editable.
$(READY): requirements/test.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Holdtrue needs Python 3.11 or newer; none was found."; exit 1; }
	@if ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	  else echo "This Python has no venv module; install it (Debian: apt install python3-venv)."; exit 1; fi; fi
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --no-deps -r requirements/test.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
