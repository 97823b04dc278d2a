# Every target makes what it needs; all can be repeated. PYTHON: the interpreter that .venv is made from (3.11 or later).
PYTHON ?= python3
BIN = .venv/bin/python
SCHEMES = sinusoidal learned rope xpos alibi

.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: .venv/ready ## make .venv with the exact versions of constraints.txt

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch .venv/ready

demo: setup ## train five schemes on Python's own library, evaluate to 16 times the training length, draw the curves
	@# two at a time with a thread each: a fifth faster than one after the other with two, and steady on a busy machine
	printf '%s\n' $(SCHEMES) | OMP_NUM_THREADS=1 xargs -P 2 -I NAME $(BIN) -m posexp train +experiment=demo +scheme=NAME
	$(BIN) -m posexp report group=demo

test: setup ## run the tests that are not marked slow
	$(BIN) -m pytest -q -n 2 --dist loadfile -m "not slow"

test-all: test ## run the slow tests too
	$(BIN) -m pytest -q -n 2 --dist loadfile -m slow --durations 40

lint: setup ## check format, lint and types
	$(BIN) -m ruff format --check .
	$(BIN) -m ruff check .
	$(BIN) -m mypy

format: setup ## put the code into its format
	$(BIN) -m ruff check --fix-only .
	$(BIN) -m ruff format .

docs: setup ## write the generated pages of the guide and build it: build/guide/index.html, which opens from disk
	$(BIN) -m scripts.docs
	$(BIN) -m scripts.docs --stage
	$(BIN) -m zensical build --clean --strict

clean: ## remove .venv and caches; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist

.PHONY: help setup demo test test-all lint format docs clean
