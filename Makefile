# The life of a checkout. `make help` lists the targets; GNU make and a POSIX shell are all that this file needs.

PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all lint install scatter browser constraints clean examples python compiler

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PARALLEL := -n logical --maxprocesses 8 --dist loadfile

# The stamp holds the folder that was installed: an environment that was copied or moved still points to the old one.
ifneq ($(shell [ -x $(PY) ] && cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
endif

help: ## list the targets
	@echo "usage: make TARGET [PYTHON=python3] [ARGS='arguments of the demo']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

demo: install ## run the demonstration on scikit-learn's digits
	@$(VENV)/bin/graphkd demo $(ARGS)

test: install lint ## check style and types, run the quick tests with their coverage
	@$(PY) -m pytest $(PARALLEL) --cov=graphkd

test-all: compiler test browser ## after test: the slow tests, each example, and the tests with torch-scatter
	@$(PY) -m pytest $(PARALLEL) -m "slow and not scatter"
	@$(MAKE) --no-print-directory examples scatter
	@GRAPHKD_REQUIRE_SCATTER=1 $(PY) -m pytest -m scatter

lint: install ## check style, format and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m pyright

examples: install ## run each example as briefly as it can
	@set -e; for example in examples/*.py; do \
	    [ -e "$$example" ] || { echo "graphkd: there is no example in examples/" >&2; exit 1; }; \
	    echo "$$example --smoke"; \
	    $(PY) "$$example" --smoke; \
	done

scatter: compiler install ## compile torch-scatter into .venv (5 minutes)
	@$(PY) -c 'import torch_scatter' 2>/dev/null || { \
	    echo "Compiling torch-scatter against the torch in $(VENV): about 5 minutes."; \
	    $(PY) -m pip install -qq --no-build-isolation --no-cache-dir --no-deps --force-reinstall \
	        -c constraints.txt torch-scatter; \
	}

browser: install ## find or install Chromium, for the tests of the page that graphkd inspect writes
	@has() { command -v chromium || command -v chromium-browser || command -v google-chrome || \
	        ls -d "$${PLAYWRIGHT_BROWSERS_PATH:-$$HOME/.cache/ms-playwright}"/chromium-*; } >/dev/null 2>&1; \
	    has || { [ "$$(id -u)" = 0 ] && { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } \
	        >/dev/null 2>&1; } || $(PY) -m playwright install chromium >/dev/null 2>&1; \
	    has || echo "graphkd: no Chromium, so the tests of the page are skipped (Debian, Ubuntu: apt install chromium)" >&2

install: $(INSTALLED) ## make .venv with graphkd, its dependencies and the developers' tools (3 GB to download)

constraints: install ## write the newest versions that pyproject.toml allows into constraints.txt
	@$(PY) -m pip install -qq uv
	@{ grep '^#' constraints.txt; $(PY) -m uv pip compile -q pyproject.toml --all-extras --universal \
	    --python-version 3.10 --no-annotate --no-header; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt

clean: ## remove .venv and all that the tools leave behind; data and runs stay
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt | python
	@if [ -e $@ ] && [ "$$(cat $@)" != "$(CURDIR)" ] || [ ! -x $(PY) ]; then rm -rf $(VENV); fi
	@echo "Installing graphkd and its dependencies into $(VENV): several minutes the first time."
	@[ -e $(PY) ] || "$(PYTHON)" -m venv $(VENV)
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@printf '%s\n' "$(CURDIR)" > $@

# What is missing is said before anything is done about the rest.

python:
	@[ "$$(cat $(INSTALLED) 2>/dev/null)" = "$(CURDIR)" ] && [ -x $(PY) ] && exit; \
	    complain() { printf 'graphkd: %s\n' "$$*" >&2; }; \
	    command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	        complain "needs Python 3.10 or newer, but there is no '$(PYTHON)' here." \
	            "Install it (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3"; \
	        exit 1; }; \
	    version=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || { \
	        complain "'$(PYTHON)' does not run. Name another: make PYTHON=/path/to/python3"; exit 1; }; \
	    "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	        complain "needs Python 3.10 or newer, but '$(PYTHON)' is Python $$version." \
	            "Name another: make PYTHON=python3.12"; \
	        exit 1; }; \
	    "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	        complain "Python $$version cannot make virtual environments: its module venv or ensurepip is missing." \
	            "Debian, Ubuntu: apt install python$$version-venv"; \
	        exit 1; }; \
	    [ "$$(df -Pk . | awk 'NR == 2 {print $$4}')" -ge 8388608 ] || \
	        complain "warning: less than 8 GB free here; the installation takes about 7."

compiler: python
	@complain() { printf 'graphkd: %s\n' "$$*" >&2; }; \
	    set -- $${CXX:-c++}; command -v "$$1" >/dev/null 2>&1 || { \
	        complain "'make test-all' and 'make scatter' compile torch-scatter and need a C++ compiler," \
	            "but there is no '$$1' here. Debian, Ubuntu: apt install g++"; \
	        exit 1; }; \
	    python="$(PYTHON)"; [ ! -x $(PY) ] || python=$(PY); \
	    header=$$("$$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h; \
	    [ -e "$$header" ] || { \
	        complain "'make test-all' and 'make scatter' compile torch-scatter and need Python's headers," \
	            "but there is no $$header. Debian, Ubuntu: apt install python3-dev"; \
	        exit 1; }
