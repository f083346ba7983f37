# Everything that people do with this checkout. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help run demo test pythons test-pythons test-unit test-newest check lock screenshots
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# The first Python that is new enough; `make run PYTHON=/path/to/python3.13` takes another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$python" && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL = $(PIP_INSTALL) --require-hashes
# Takes seconds for what pip takes a minute for. It is itself among the development requirements.
UV = $(BIN)/uv
# The client of this checkout; what it needs is in the locks.
INSTALL_CLIENT = $(PIP_INSTALL) --no-deps --no-build-isolation --editable client

help: ## List what can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/installed ## Install what is needed and start the hub (Ctrl-C stops it)
	@exec $(BIN)/python manage.py hub

demo: $(VENV)/installed ## Start a hub and simulated agents that work for it (Ctrl-C stops both)
	@export AGENTCOM_DATA_DIR="$${AGENTCOM_DATA_DIR:-var/demo}"; \
	$(BIN)/python manage.py hub & hub=$$!; \
	$(BIN)/python manage.py simulate --url "http://127.0.0.1:$${AGENTCOM_PORT:-4000}" $(SIMULATE) & fleet=$$!; \
	trap 'kill $$fleet $$hub 2>/dev/null; wait' EXIT; trap 'exit 0' INT TERM HUP; \
	while kill -0 $$hub && kill -0 $$fleet; do sleep 1; done 2>/dev/null; \
	kill -0 $$hub 2>/dev/null || wait $$hub

# Test files run side by side in so many processes; 0: in pytest's own, as --pdb needs it. Two keep
# two cores busy. Files with hubs begin, and the quick ones end together (tests/conftest.py).
JOBS := 2
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

# The hubs of the tests run under Daphne on SQLite and under uvicorn on PostgreSQL, so that both
# servers are tested without a third run. What both promise is in tests/cluster/test_servers.py.
# AGENTCOM_TEST_SERVER chooses one for both runs.
ON_SQLITE = DATABASE_URL= REDIS_URL= AGENTCOM_TEST_SERVER="$${AGENTCOM_TEST_SERVER:-daphne}" $(PYTEST)
# Only the tests that use a database (tests/selection.py).
ON_POSTGRESQL = DATABASE_URL="$$TEST_DATABASE_URL" REDIS_URL="$$TEST_REDIS_URL" \
	AGENTCOM_TEST_SERVER="$${AGENTCOM_TEST_SERVER:-uvicorn}" $(PYTEST)

test: $(VENV)/installed-dev ## Run the tests; `make test TESTS="tests/tasks -k retry"` runs some
	@test -z "$$TEST_DATABASE_URL$$TEST_REDIS_URL" || test -n "$$TEST_DATABASE_URL" -a -n "$$TEST_REDIS_URL" || { \
		echo "TEST_DATABASE_URL and TEST_REDIS_URL go together: set both to run the tests on" \
			"PostgreSQL and Redis too, or neither." >&2; exit 1; }
	@$(ON_SQLITE)
	@test -z "$$TEST_DATABASE_URL" || { echo "— Once more, on PostgreSQL and Redis"; $(ON_POSTGRESQL); }

# One of each version that is here, in the path or of pyenv. Each gets the newest Django it can have.
# `true`: make drops what is printed before a 127, "not found", which a missing 3.14 ends with.
PYTHONS = $(shell for minor in 11 12 13 14; do \
	for python in python3.$$minor "$$HOME"/.pyenv/versions/3.$$minor.*/bin/python; do \
		"$$python" -c "" 2>/dev/null && echo "$$python" && break; done; done; true)
VERSION_OF := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
UNIT := $(addprefix tests/,agentcom tasks counters fleet worker dashboard metrics)

OTHERS = $(shell here=$$($(BIN)/python $(VERSION_OF)); for python in $(PYTHONS); do \
	test "$$("$$python" $(VERSION_OF))" = "$$here" || echo "$$python"; done)

pythons: $(VENV)/made ## List the other Pythons of this machine that are new enough
	@for python in $(OTHERS); do echo "$$python"; done

# Pythons and databases are tried in pairs and not each with each, which would take twice as long:
#
# - The first Python, in CI the oldest, with the Django of its time: all tests on SQLite (make test).
# - The newest, with the newest Django, as in the image: what uses a database on PostgreSQL and
#   Redis, and the unit and flow tests that use none, or are about SQLite, on SQLite. Without
#   TEST_DATABASE_URL, all unit and flow tests on SQLite.
# - Those between: the unit tests on SQLite.
#
# So each Python meets every unit test, the oldest and the newest every flow test, each database
# every test that uses one, and both Djangos both kinds of test. That proves the same because
# nothing here depends on both at once: no code asks for the version of Python, and what speaks to a
# database is Django and psycopg, which are released for each pair. What Python takes away stays
# away, and what it adds stays, so hubs that run with the oldest and the newest run with those
# between. Where there is only one Python, it meets both databases.
test-pythons: $(VENV)/installed-dev ## Run the tests on the other Pythons; with TEST_DATABASE_URL, the newest on PostgreSQL
	@set -- $(OTHERS); \
	while test $$# -gt 0; do \
		python=$$1; tests=test-unit; shift; \
		test $$# -gt 0 || tests=test-newest; \
		$(MAKE) $$tests VENV=.venv-$$("$$python" $(VERSION_OF)) PYTHON="$$python" UV=$(UV) || exit; \
	done

test-unit: $(VENV)/installed-dev
	@echo "— Unit tests with $(VENV)"
	@$(ON_SQLITE) $(UNIT)

test-newest: $(VENV)/installed-dev
	@test -z "$$TEST_DATABASE_URL" || { echo "— On PostgreSQL and Redis with $(VENV)"; $(ON_POSTGRESQL); }
	@echo "— Unit and flow tests with $(VENV)"
	@$(ON_SQLITE) $(UNIT) tests/flow $${TEST_DATABASE_URL:+--not-on-postgresql}

check: $(VENV)/installed-dev ## Style, types, imports, missing migrations, settings
	@failed=; run() { echo "— $$*"; "$$@" || failed="$$failed; $$*"; }; \
	run $(BIN)/ruff check; \
	run $(BIN)/ruff format --check; \
	run $(BIN)/mypy; \
	run $(BIN)/lint-imports --no-logo; \
	run $(BIN)/python manage.py makemigrations --check --dry-run; \
	export AGENTCOM_SECURE=true AGENTCOM_DASHBOARD_ACCESS=staff AGENTCOM_ALLOWED_HOSTS=agentcom.example; \
	run $(BIN)/python manage.py check --deploy --fail-level WARNING; \
	test -z "$$failed" || { echo "Not in order: $${failed#; }" >&2; exit 1; }

screenshots: $(VENV)/installed-dev ## Retake the README's screenshots of the dashboard
	@$(BIN)/python -m docs.screenshots

# --no-config, and no index in the output: the locks are the same wherever they are compiled.
COMPILE = $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(VENV)/installed-dev ## Compile the pinned requirements again; `make lock UPGRADE=--upgrade` takes the newest
	@$(COMPILE) $(UPGRADE) requirements-checkout.in --output-file requirements.txt
	@$(COMPILE) $(UPGRADE) requirements-dev.in --output-file requirements-dev.txt
	@echo "Locked. Run make test before you commit the requirements."

$(VENV)/installed: requirements.txt client/pyproject.toml | $(VENV)/made
	@echo "Installing what AgentCom needs into $(VENV) …"
	@$(INSTALL) -r requirements.txt
	@$(INSTALL_CLIENT)
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt client/pyproject.toml | $(VENV)/made
	@echo "Installing what the tests and checks need into $(VENV) …"
	@test -x $(UV) || sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.txt | $(INSTALL) -r /dev/stdin
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt || { \
		echo "With pip instead, which may know another index:"; $(INSTALL) -r requirements-dev.txt; }
	@$(INSTALL_CLIENT)
	@touch $@

$(VENV)/made:
ifeq ($(PYTHON),)
	@echo "AgentCom needs Python 3.11 or newer, and none was found here." >&2
	@echo "Install it (on Debian or Ubuntu: apt install python3 python3-venv; on macOS: brew install python)," >&2
	@echo "or say where it is: make run PYTHON=/path/to/python3" >&2
	@exit 1
else
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "AgentCom needs Python 3.11 or newer; $(PYTHON) is none." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "Python could not make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@
endif
