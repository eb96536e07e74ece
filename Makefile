# `make demo` and `make test` are all a fresh machine needs.
VENV ?= .venv
BIN := $(VENV)/bin
export VENV

.PHONY: help install demo test lint slow clean

help:
	@echo "make demo   install everything into $(VENV) and run 'auditor demo'"
	@echo "make test   install everything and run linters, type checks, import contracts and tests"
	@echo "make slow   the long experiments among the tests"

install:
	@tools/install.sh

demo: install
	$(BIN)/auditor demo

lint: install
	$(BIN)/ruff format --check auditor tests benchmarks
	$(BIN)/ruff check auditor tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2 -m "not slow"

slow: install
	@tools/install_servers.sh
	$(BIN)/pytest -m slow

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
