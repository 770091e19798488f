# make demo and make test do all the set-up themselves. PYTHON=... chooses the interpreter (3.11 or 3.12).
# make demo DRIVER=nvml-standin walks the whole way to NVML, on a stand-in for NVIDIA's library that gcc compiles.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUPPORTED := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do "$$p" -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$p && break; done)

CXX_SOURCES = $(wildcard native/*/*.h native/*/*.cc)

.PHONY: setup demo test test-sanitizers tidy bench wheel format clean

# The install compiles the backend. Later calls compile only files that have changed.
setup: $(STAMP)
	@$(BIN)/python -m native.build --fetch

$(STAMP): pyproject.toml hatch_build.py
	@test -n "$(PYTHON)" || { echo "jigsaw-triton needs Python 3.11 or 3.12 with its venv module (Debian, Ubuntu: apt-get install python3.12-venv), or say which: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing jigsaw-triton and what it needs into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[apps,dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m demo $(DRIVER)

# Tests that start tritonservers run one by one, because they measure times; the others run in parallel.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES) </dev/null
	$(BIN)/mypy
	$(BIN)/jigsaw-triton fetch ensembles/docread ensembles/digits ensembles/digits-strip
	$(BIN)/python -m pytest -m "not e2e" -n auto --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m e2e

# Tests of the backend's core under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer.
test-sanitizers: setup
	$(BIN)/python -m native.sanitize

# Mistakes in the C++ sources that clang-tidy finds; it is fetched for this (46 MB) and needs the headers of g++.
tidy: setup
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet clang-tidy==23.1.4
	cd native && ls */*.cc | xargs -P 2 -I{} ../$(BIN)/clang-tidy --quiet {} -- -std=c++20 -I. '-DJIGSAW_VERSION="0"' '-DJIGSAW_COMPILER="0"'

# A wheel that runs on glibc 2.28 and later, compiled by zig, and tried in an empty environment.
wheel: setup
	@$(BIN)/python -m native.wheel

format: setup
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES) </dev/null

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist jigsaw_triton/_native .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
