# Needs Python 3.11 or newer with venv and pip, make, and nothing else: the first target run makes .venv.

VENV := .venv
BIN := $(VENV)/bin
UV_PIN := $(shell sed -n 's/.*"\(uv==[0-9.]*\)".*/\1/p' pyproject.toml)
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
EXPORT := $(BIN)/uv export --quiet --locked --no-default-groups --no-hashes --no-header --no-annotate
LOCKED := requirements.txt docker/requirements.ingestor.txt docker/requirements.mlflow.txt
WANTED_requirements.txt := --all-extras
WANTED_docker/requirements.ingestor.txt := --no-emit-project
# Its server has no use for what richter computes with.
WANTED_docker/requirements.mlflow.txt := --no-emit-project --extra tracking \
	$(addprefix --prune=,confluent-kafka msgspec numba polars rich structlog websockets zstandard)
ARGS ?=

# The lock file must not depend on whose machine it was made on.
unexport UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INDEX UV_INDEX_URL UV_PYTHON VIRTUAL_ENV
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never

.PHONY: help venv demo kafka test check requirements-check bench chaos soak seed compose-test docs lock clean

help: ## Show this list
	@sed -n "s/^\([a-z-]*\):.*## /\1	/p" $(MAKEFILE_LIST) | expand -t 14

venv: $(VENV)/.synced ## Make or update .venv

demo: $(VENV)/.synced ## A simulated exchange, watched live, offline (ARGS=…)
	$(BIN)/richter demo $(ARGS)

kafka: $(VENV)/.synced ## A Kafka broker on this machine, without Docker (ARGS=--brokers 3); stop it: richter kafka down
	$(BIN)/richter kafka up $(ARGS)

test: $(VENV)/.synced ## Run the tests (ARGS=…), on four cores at most: brokers want memory
	$(BIN)/pytest -n auto --maxprocesses 4 $(ARGS)

check: $(VENV)/.synced requirements-check ## Lint, types, layers, lock file, requirements.txt, containers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile.ingestor docker/Dockerfile.mlflow
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/docker-compose.yaml
	bash -n docker/kafka/tool && bash -n docker/kafka/healthy

requirements-check: $(VENV)/.uv
	@$(BIN)/uv lock --check --quiet
	@$(foreach file,$(LOCKED),$(EXPORT) $(WANTED_$(file)) | diff $(file) - \
		|| { echo "$(file) is not what uv.lock says: run make lock"; exit 1; };)

bench: $(VENV)/.synced ## Run the benchmarks, written to docs/benchmarks.md and docs/benchmarks_kafka.md
	$(BIN)/uv sync --quiet --locked --inexact --group bench
	$(BIN)/python -m benchmarks --out docs/benchmarks.md
	$(BIN)/python -m benchmarks.kafka --out docs/benchmarks_kafka.md

chaos: $(VENV)/.synced ## Hundreds of kills and a million broken frames (ARGS=…), written to docs/chaos.md
	$(BIN)/python -m tests.chaos --out docs/chaos.md $(ARGS)

soak: $(VENV)/.synced ## An hour live against an exchange full of faults (ARGS=…), written to docs/soak.md
	$(BIN)/python -m tests.soak --out docs/soak.md $(ARGS)

seed: $(VENV)/.synced ## The course's commands, typed in full (SEED_MINUTES=15, ARGS=…), written to docs/seed.md
	$(BIN)/python -m tests.seed --out docs/seed.md $(ARGS)

compose-test: $(VENV)/.synced ## The course's commands on a Docker engine, in a copy of the project (ARGS=--short)
	$(BIN)/python -m tests.compose $(ARGS)

docs: $(VENV)/.synced ## Write the generated parts of the documentation
	$(BIN)/python -m richter.cli.docs

lock: $(VENV)/.uv ## Resolve the dependencies anew (ARGS=--upgrade), write uv.lock and requirements.txt
	$(BIN)/uv lock $(ARGS)
	$(foreach file,$(LOCKED),$(EXPORT) $(WANTED_$(file)) > $(file) &&) true

clean: ## Remove .venv and caches; data/ stays
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# Only the base and the development tools: the extras (MLflow, Jupyter, …) weigh ten times as much.
$(VENV)/.synced: $(VENV)/.uv uv.lock
	$(BIN)/uv sync --quiet --locked --inexact
	@touch $@

$(VENV)/.uv: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/uv --version 2>/dev/null | grep -qF "$(subst ==, ,$(UV_PIN)) " \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV_PIN)
	@touch $@
