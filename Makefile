# Everything runs in .venv, which the first command builds and a change of setup.cfg or
# pyproject.toml brings up to date. Needs only make and Python 3.11 or newer: make PYTHON=python3.12
# Paths are relative and tools run as modules, so that a directory with a space in its name works.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

SECONDS ?= 60
ANEW ?= peers cuda
DATA ?= mnist

.PHONY: help demo demo-browser test test-all check format fuzz bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo      train LeNet-5 on the digits, compress it, show the table"
	@echo "make demo-browser  train, compress and serve edge/js/demo: LeNet-5 in a browser; needs npm"
	@echo "make test      the tests, without the slow proofs"
	@echo "make test-all  all tests"
	@echo "make check     formatting, lint and types"
	@echo "make format    format the code and sort its imports"
	@echo "make fuzz      fuzz the C core under sanitizers: SECONDS=3600 for an hour; needs clang"
	@echo "make bench     measure and write the README's tables: CHECKPOINTS=folder DATA_ROOT=folder,"
	@echo "               else the digits; ANEW='peers codec latency cuda' says which [peers cuda]"
	@echo "make clean     remove caches, builds and the demo's files; .venv stays"

demo: .venv/installed
	@mkdir -p demo
	@rm -rf demo/lenet5.pt demo/lenet5-compressed
	$(VENV_PYTHON) -m compressor train lenet5 --data digits -o demo/lenet5.pt
	@cd demo && PATH="$$(cd .. && pwd)/.venv/bin:$$PATH" && export PATH && set -x && \
	compress lenet5.pt --prune-sensitivity 0.25 --quantize 5bit --data digits

# DATA=digits where MNIST cannot be had. A quarter of an hour.
demo-browser: .venv/installed
	$(VENV_PYTHON) -m compressor.benchmarks.edge.demo --data $(DATA)
	cd edge/js && npm install --no-audit --no-fund && npm start

# By two processes, a test file each: what a file prepares once it prepares once.
test: .venv/installed
	$(VENV_PYTHON) -m pytest -m "not slow" -n 2 --dist loadfile

test-all: .venv/installed
	$(VENV_PYTHON) -m pytest

check: .venv/installed
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy

format: .venv/installed
	$(VENV_PYTHON) -m ruff check --select I --fix .
	$(VENV_PYTHON) -m ruff format .

fuzz: .venv/installed
	$(VENV_PYTHON) -m tests.fuzz.core --seconds $(SECONDS)

bench: .venv/installed
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(VENV_PYTHON) -m compressor.benchmarks --anew $(ANEW) \
	  $(if $(CHECKPOINTS),--checkpoints "$(CHECKPOINTS)") $(if $(DATA_ROOT),--data-root "$(DATA_ROOT)")

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf demo/lenet5.pt demo/lenet5-compressed
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

.venv/installed: setup.cfg pyproject.toml setup.py $(wildcard compressor/coding/core/*)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; \
	exit 1; }
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv
	@echo "installing into .venv (about 6 GB with torch's default build; once, takes minutes) ..."
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
