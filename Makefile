# The usual verbs; each is what CI does. `make check` is all that must pass before a change lands.

.PHONY: install check test lint types format docs bench wheel clean

install:  ## this checkout, editable, with what tests and linters need
	pip install -e '.[test,dev]'

check: lint types test

test:
	pytest

lint:
	ruff check .
	ruff format --check .

types:
	mypy

format:
	ruff check --fix .
	ruff format .

docs:  ## the pages that follow from the code: command_line.md, api.md
	python .ci/write_docs.py

bench:
	vaezoo bench

wheel:
	pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
