# Every target installs first what is missing; nothing is needed but Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo serve test check format bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED) ## set everything up in .venv, from the hash-locked requirements

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@# The lock is the whole resolution. Resolving it again lets older pips fail on an extra of a pinned
	@# package (coverage[toml]) as soon as a newer release of that package exists.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## a flag that turns bad goes off by itself (ARGS="--healthy", "--once --json")
	@$(BIN)/python -m examples.demo $(ARGS)

serve: $(INSTALLED) ## the server on SQLite in ./flagd.db (ARGS="--port 8013")
	@$(BIN)/flagd-server serve $(ARGS)

test: $(INSTALLED) ## all the tests, with branch coverage of the pure parts
	$(BIN)/pytest -n 2 --dist loadgroup --cov --cov-report=term $(ARGS)

check: $(INSTALLED) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## all benchmarks, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks all --write benchmarks/RESULTS.md $(ARGS)

lock: ## resolve the dependencies anew, with hashes (needs uv)
	uv pip compile pyproject.toml --extra server --extra regex --group dev \
		--universal --python-version 3.11 --generate-hashes --no-header -o requirements.lock

clean: ## remove what the targets made
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
