# From a fresh clone, `make study` and `make test` do everything; both build .venv when they need it.
# Variables: PYTHON (3.11 or newer), WORKERS (processes for the tests).

PYTHON ?= python3
WORKERS ?= 2
STUDY := experiments/e01_containment/study.yaml
BIN := .venv/bin
READY := .venv/.ready
INSPECT := .venv-inspect/.ready

.PHONY: help study test test-inspect audit check check-format check-lint check-types check-layers bench format clean
.DEFAULT_GOAL := help

help:
	@echo 'make study   run the main study on the embedded organism; ends with the path of report.html'
	@echo 'make test    run the tests'
	@echo 'make test-inspect   the tests of the Inspect AI extra, in an environment of their own'
	@echo 'make check   format, lint, types and import layers, as CI runs them'
	@echo 'make audit   look all pinned libraries up in a list of known vulnerabilities (needs the net)'
	@echo 'make bench   measure against peers on the same work (about five minutes)'
	@echo 'make format  rewrite the sources in the house format'
	@echo 'make clean   remove the environment and the caches; runs/ is kept'

# Embedded work needs no hub, and must not wait for one. One thread, because the embedded models are
# too small to share out, and because equal threads give equal figures on every machine.
study: export HF_HUB_OFFLINE = 1
study: export OMP_NUM_THREADS ?= 1
study: $(READY)
	$(BIN)/python -m em_interp.study $(STUDY)

# One thread a worker: torch threads of several workers on few cores wait for each other.
test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

# Inspect leaves sockets to the collector; only its own tests look away from that.
test-inspect: export OMP_NUM_THREADS = 1
test-inspect: $(INSPECT)
	.venv-inspect/bin/python -m pytest -p no:unraisableexception tests/inspect

check: check-format check-lint check-types check-layers

check-format: $(READY)
	$(BIN)/ruff format --check .

check-lint: $(READY)
	$(BIN)/ruff check .

check-types: $(READY)
	$(BIN)/mypy

check-layers: $(READY)
	$(BIN)/lint-imports

# Tools of its own environment, so that what is audited is what is pinned. Exit 1: vulnerabilities
# were found; 2: nothing was looked up, which is no good news.
audit:
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit \
	  || { echo 'error: no package index can be reached for pip-audit; nothing was audited'; exit 2; }
	@.venv-audit/bin/pip-audit --strict --progress-spinner off --no-deps --disable-pip \
	  -r constraints.txt >.venv-audit/report 2>&1; code=$$?; \
	if [ $$code -eq 0 ] || grep -q 'known vulnerabilit' .venv-audit/report; \
	then cat .venv-audit/report; exit $$code; \
	else echo "error: no vulnerability service can be reached ($$(tail -n 1 .venv-audit/report \
	  | cut -c 1-200)); nothing was audited"; exit 2; fi

bench: export HF_HUB_OFFLINE = 1
bench: $(READY)
	$(BIN)/python -m benchmarks

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-inspect .venv-audit build *.egg-info .mypy_cache .ruff_cache .import_linter_cache

# The stamp is written last, so that an installation which was cut off is done again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 2; }
	@echo 'Setting up .venv (one to a few minutes, only when the dependencies change)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(INSPECT): pyproject.toml constraints-inspect.txt
	@echo 'Setting up .venv-inspect (one to a few minutes, only when the dependencies change)'
	@$(PYTHON) -m venv .venv-inspect
	@.venv-inspect/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-inspect.txt -e '.[api,gguf,inspect]' pytest beartype
	@touch $@
