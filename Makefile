# The usual verbs; each is what CI does. `make check` is all that must pass before a change lands.

.PHONY: install check test lint types format docs bench wheel oldest lock locked audit fuzz clean

install:  ## this checkout, editable, with what tests and linters need
	pip install -e '.[test,dev]'

check: lint types test

test:
	pytest -n auto --dist worksteal

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

oldest:  ## the tests on the oldest versions that pyproject.toml allows
	.ci/oldest

lock:  ## requirements-dev.lock anew, with the hashes of every file; needs uv
	uv pip compile --quiet --generate-hashes --no-annotate --no-header --extra test --extra dev \
	  --constraint .ci/constraints.txt --output-file requirements-dev.lock pyproject.toml

locked:  ## what tests and linters need, in the very files that the lock names
	pip install --require-hashes --requirement requirements-dev.lock
	pip install --no-deps --editable .

audit:  ## known vulnerabilities of what is locked; needs pip-audit, and the service that it asks
	pip-audit --requirement requirements-dev.lock --require-hashes --disable-pip --strict

fuzz:  ## a minute of damaged files for every kind of file that is read; better with atheris
	python tests/fuzz/fuzz.py

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
