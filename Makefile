# make demo and make test do all set-up by themselves, into .venv. They need Python 3.11 or later, and
# make. Another interpreter: make demo PYTHON=/path/to/python3.12

VENV ?= .venv
BIN := $(VENV)/bin

# The first Python of at least 3.11 that can make a virtual environment.
PYTHON ?= $(shell for candidate in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$candidate; break; fi; done)

# Test processes side by side. Three suit a machine with two cores: tests also wait.
JOBS ?= 3
PYTEST_ARGS ?=
# REQUIRE_EXTERNALS=1: every outside program must be there, and a skip is a failure.
REQUIRE_EXTERNALS ?=

# The tests start several hundred processes; without byte code on disk each compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test bare three-workers check audit docs soak mutants bench extras image release-check format clean

help:
	@echo 'make setup    create .venv and install everything'
	@echo 'make demo     start a local fake APNs and send a Live Activity to 20,000 simulated phones'
	@echo 'make test     the test suite (last seen: 8 minutes on two cores)'
	@echo 'make check    lint, types, layers, known vulnerabilities, documentation'
	@echo 'make extras   install the wheel with each extra, import its modules, and play four users of the docs'
	@echo 'make image    build the container image with buildah, and run it (as root)'
	@echo 'make release-check  build what a release publishes, check it, run it in clean environments'
	@echo 'make soak     the long runs: 200,000 simulated worlds, a million fuzzed inputs, 200 kills, 100 rounds of chaos'
	@echo 'make mutants  measure which changes of the code the tests notice (MUTANTS="--sample 400")'
	@echo 'make bench    run all benchmarks and write docs/measurements/'

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo 'No Python of at least 3.11 with venv was found. Install one, or name it: make PYTHON=/path/to/python3.11' >&2; \
		exit 1; fi
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of packages, made anew when the list of dependencies changes.
$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fake]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed-demo

setup: $(VENV)/.installed-test

demo: $(VENV)/.installed-demo
	$(BIN)/apns-live demo

# A temporary folder of its own: pytest closes its usual one to other users whenever a run begins,
# and PostgreSQL, which will not run as root, then loses its data.
test: $(VENV)/.installed-test
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	APNS_LIVE_HYPOTHESIS_PROFILE=ci APNS_LIVE_REQUIRE_EXTERNALS=$(REQUIRE_EXTERNALS) \
		$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --basetemp="$$folder/pytest" $(PYTEST_ARGS)

# As on a machine that has no program but Python: what depends on what is there, and what opens files.
BARE := tests/workshop tests/interop tests/plugin tests/inspector tests/cli/test_tools.py \
	tests/activities/store tests/delivery/test_runs.py tests/testing_wire/test_real_clients.py \
	$(addprefix tests/gateway/native/test_,backup.py bad_requests.py dashboard.py keys.py logs.py program.py security.py) \
	$(addprefix tests/gateway/braze/test_,life.py refusals.py)
bare: $(VENV)/.installed-test
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && mkdir "$$folder/no-programs" && \
	for name in sh true useradd; do \
		ln -s "$$(command -v $$name || echo /usr/sbin/$$name)" "$$folder/no-programs/$$name"; done && \
	APNS_LIVE_HYPOTHESIS_PROFILE=ci APNS_LIVE_NODE_MODULES= PATH="$$folder/no-programs" \
		$(BIN)/python -m pytest -q -n $(JOBS) --basetemp="$$folder/pytest" $(BARE) $(PYTEST_ARGS)

# What is sent, over PostgreSQL with two more services beside the one of the test.
THREE := $(addprefix tests/activities/send/test_,life.py notifying.py tokens.py limits.py channels.py waiting.py watch.py)
three-workers: $(VENV)/.installed-test
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	APNS_LIVE_WORKERS=3 $(BIN)/python -m pytest -q -n $(JOBS) --basetemp="$$folder/pytest" $(THREE) $(PYTEST_ARGS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.workshop.house
	$(BIN)/python -m tests.workshop.audit
	$(MAKE) docs

docs: $(VENV)/.installed-test
	$(BIN)/python -m tests.workshop.site site

extras: $(VENV)/.installed-test
	$(BIN)/python -m tests.workshop.extras
	$(BIN)/python -m tests.workshop.users

# The image of deploy/Containerfile, built with buildah and run. As root; the base is made or pulled once.
IMAGE_DIR ?= /var/tmp/apns-live-image
image: $(VENV)/.installed-test
	$(BIN)/python -m tests.workshop.image $(IMAGE_DIR)

# What a release would publish, into dist/ and sbom/: built, checked, and run in clean environments.
release-check: $(VENV)/.installed-test
	$(BIN)/python -m tests.workshop.release

# How many small changes to the modules that decide something the tests notice. Minutes, by MUTANTS.
MUTANTS ?= --sample 100
mutants: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	$(BIN)/python -m tests.workshop.mutants --jobs $(JOBS) $(MUTANTS)

# The full counts. An hour or more. Simulated worlds go on where an earlier run was stopped.
soak: $(VENV)/.installed-test
	@mkdir -p docs/measurements
	APNS_LIVE_WORLDS=200000 $(BIN)/python -m tests.simulation --jobs $(JOBS) --state .soak-worlds.json
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	APNS_LIVE_HYPOTHESIS_PROFILE=soak APNS_LIVE_FUZZ=1000000 APNS_LIVE_KILLS=200 APNS_LIVE_TAKEOVERS=100 APNS_LIVE_TAKEOVER_SECONDS=5 \
		APNS_LIVE_ATTACKS=1 APNS_LIVE_ROLLING_RATE=200 \
		$(BIN)/python -m benchmarks record soak -- \
		$(BIN)/python -m pytest -q -n $(JOBS) -o timeout=7200 --basetemp="$$folder/pytest" $(PYTEST_ARGS)

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks all --record

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf site dist build sbom
