# Each target installs what it needs. PYTHON=... chooses the interpreter (3.11 or 3.12).
# make demo DRIVER=nvml-standin uses the MIG driver for real GPUs, on a stand-in for NVIDIA's library that gcc compiles.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUPPORTED := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do "$$p" -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$p && break; done)

CXX_SOURCES = $(wildcard native/*/*.h native/*/*.cc)
# The order of the files in a run is that of tests/conftest.py. A test that kills its worker ends the run.
RUN = -m pytest --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# Tests without tritonservers wait less, so fewer files at a time: make test-fast UNIT_FILES=8.
UNIT_FILES ?= 4
UNIT_RUN = $(RUN) -n $(UNIT_FILES) -m

# Python keeps compiled modules, whatever the environment says: the tests start hundreds of Python processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-all types test-fast coverage test-sanitizers tidy bench wheel docs format clean .python

# The installation compiles the backend and bundles the web console. Later runs build only what has changed.
setup: $(STAMP)
	@$(BIN)/python -m native.build --fetch
	@$(BIN)/python -m console.build

$(STAMP): pyproject.toml hatch_build.py | .python
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 with the venv module was found. Install one (Debian, Ubuntu: apt-get install python3.12-venv), or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing jigsaw-triton and its dependencies into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[apps,dev]'
	@touch $@

# Checks an interpreter that the user names, before something is installed. An existing $(VENV) keeps its own.
.python:
ifneq ($(origin PYTHON),file)
	@"$(PYTHON)" -c '$(SUPPORTED)' >/dev/null 2>&1 || { echo "PYTHON=$(PYTHON) is no Python 3.11 or 3.12 with the venv module. Name another, or install it (Debian, Ubuntu: apt-get install python3.12-venv)." >&2; exit 1; }
	@asked=$$("$(PYTHON)" -c '$(VERSION)') && has=$$($(BIN)/python -c '$(VERSION)' 2>/dev/null || echo "$$asked") && \
	    test "$$has" = "$$asked" || { echo "$(VENV) has Python $$has, but PYTHON=$(PYTHON) is Python $$asked. Run make clean to remove $(VENV), or leave PYTHON out." >&2; exit 1; }
endif

demo: setup
	@$(BIN)/python -m demo $(DRIVER)

# The types are checked while the tests run.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES) </dev/null
	@$(MAKE) --no-print-directory --jobs 2 types test-all

types: setup
	$(BIN)/mypy
	$(BIN)/python -m console.build --types

# Tests with tritonservers mostly wait. Six files at a time, among them some without, keep two processors busy; a
# machine with more runs more at a time: make test FILES=16.
FILES ?= 6
# A few of the tests depend on what else the machine does. Those that failed are run once more, one at a time.
AGAIN := The tests above failed. A test that passes now, without others beside it, has a fault of its own: please report it.
test-all: setup
	$(BIN)/jigsaw-triton fetch ensembles/docread ensembles/digits ensembles/digits-strip ensembles/traffic-cpu
	$(BIN)/python $(RUN) -n $(FILES) || { [ $$? = 1 ] && echo "$(AGAIN)" && $(BIN)/python -m pytest -rA --last-failed --last-failed-no-failures none; }

# The inner loop of development: everything that needs no tritonserver and is not marked slow.
test-fast: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python $(UNIT_RUN) "not e2e and not slow"

# Branch coverage of the tests that start no tritonserver; fails below the floor in pyproject.toml.
coverage: setup
	$(BIN)/python $(UNIT_RUN) "not e2e" --cov --cov-report=term:skip-covered

# Runs the tests of the backend's core under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer.
test-sanitizers: setup
	$(BIN)/python -m native.sanitize

# Checks the C++ sources with clang-tidy. It is downloaded for this (46 MB), and needs the headers of g++.
tidy: setup
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet clang-tidy==23.1.4
	cd native && ls */*.cc | xargs -P 2 -I{} ../$(BIN)/clang-tidy --quiet {} -- -std=c++20 -I. '-DJIGSAW_VERSION="0"' '-DJIGSAW_COMPILER="0"'

# Builds a wheel for glibc 2.28 and later, compiled by zig, and tries it in an empty environment.
wheel: setup
	@$(BIN)/python -m native.wheel

# Builds the documentation site into build/site.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

format: setup
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES) </dev/null

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist jigsaw_triton/_native jigsaw_triton/console/assets console/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
