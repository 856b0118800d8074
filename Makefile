# Two commands set everything up: `make demo` and `make test`. With CPU=1 the torch that comes is one without GPU libraries.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
ifdef CPU
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet uv && $(BIN)/python -m uv pip install --quiet --torch-backend cpu -c constraints.txt
endif

.PHONY: demo demo-train test lint messages wheel clean chromium

demo: .venv/run.stamp
	$(BIN)/gazetell demo

demo-train: .venv/run.stamp
	$(BIN)/gazetell demo --train --again

test: .venv/dev.stamp chromium
	$(BIN)/python -m pytest -n 2

# For the tests of the web page; without it they are skipped.
chromium:
	@command -v chromium >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	&& apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	|| echo "no Chromium here: the tests of the web page will be skipped"

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every error message of the code, to be read.
messages: .venv/dev.stamp
	$(BIN)/python tests/test_messages.py

wheel: .venv/dev.stamp
	$(BIN)/python -m hatchling build -t wheel -d dist

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gazetell needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[dev,coco,cluster]'
	touch $@ .venv/run.stamp

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
