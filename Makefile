# Every target installs first what is missing; nothing is needed but Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=
ENGINE ?= docker
IMAGE ?= flagd-release

.DEFAULT_GOAL := help
.PHONY: help install demo serve test cover fuzz check format bench peers image lock clean

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

# By file, since the tests of one often share a server; in order, since the quick ones come last; two
# processes more than CI has cores, since a third of the time is spent waiting.
test: $(INSTALLED) ## all the tests
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

cover: $(INSTALLED) ## branch coverage of the pure parts, by their own tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term tests/sdk tests/server/domain \
		tests/server/stats tests/golden tests/properties tests/statistics $(ARGS)

fuzz: $(INSTALLED) ## 20,000 requests to every operation, by each kind of caller (ARGS="--seed 7")
	$(BIN)/python -m tests.fuzz $(ARGS)

check: $(INSTALLED) ## ruff, mypy --strict, import-linter, known vulnerabilities, list of parts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/supply_chain.py audit
	$(BIN)/python .ci/supply_chain.py sbom

format: $(INSTALLED) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## all benchmarks, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks all --write benchmarks/RESULTS.md $(ARGS)

peers: ## this SDK beside its peers, into benchmarks/RESULTS.md; they get an environment of their own
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r benchmarks/peers/requirements.lock
	PYTHONPATH=.:sdk $(VENV)-peers/bin/python -m benchmarks.peers --write benchmarks/RESULTS.md $(ARGS)

image: ## the container image, named by its commit (needs Docker, or ENGINE=podman)
	@test -z "$$(git status --porcelain --untracked-files=no)" || { echo "commit first: an image is named by its commit"; exit 1; }
	$(ENGINE) build --build-arg GIT_SHA=$$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$$(git show -s --format=%ct) \
		--build-arg VERSION=$$($(PYTHON) -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])') \
		--tag $(IMAGE):$$(git rev-parse HEAD) .

lock: ## resolve the dependencies anew, with hashes (needs uv)
	uv pip compile pyproject.toml --extra cli --extra server --extra postgres --extra otel --extra regex --extra openfeature --group dev --group frameworks \
		--universal --python-version 3.11 --generate-hashes --no-header -o requirements.lock
	uv pip compile benchmarks/peers/requirements.in \
		--universal --python-version 3.11 --generate-hashes --no-header -o benchmarks/peers/requirements.lock
	uv pip compile pyproject.toml --extra server --extra postgres --extra otel --constraint requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o deploy/image/requirements.lock
	echo 'hatchling>=1.27' | uv pip compile - --constraint requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o deploy/image/build.lock

clean: ## remove what the targets made
	rm -rf $(VENV) $(VENV)-peers dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
