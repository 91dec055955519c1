# The two commands a newcomer needs are `make demo` and `make test`.  Each target makes the
# environment it needs under .venv.
PYTHON ?= python3
SECONDS ?= 20
BIN := .venv/bin
# Containers often set it, and then each program that is started compiles anew what it imports.
export PYTHONDONTWRITEBYTECODE =

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: .venv/demo ## Run a Django site on django-redis and on fleetcache, in five scenes, and write a report (SECONDS=20 of load and a minute; at first it also installs).
	@$(BIN)/python demo/run.py --seconds $(SECONDS)

test: ## Run every test on the newest Python found, with few combinations of values: some ten minutes.
	@$(PYTHON) tests/matrix.py

test-all: ## Run everything, on the oldest and the newest Python found with their Django: some 25 minutes.
	@$(PYTHON) tests/matrix.py --all $(if $(AFTER),--after-$(AFTER))

test-one: ## Run pytest with ARGS, such as ARGS="tests/test_cache.py -k touch", on the newest Python found.
	@$(PYTHON) tests/matrix.py $(ARGS)

check: .venv/check ## Lint, check types and the direction of imports.
	$(BIN)/ruff format --check src standin tests benchmarks demo docs examples studies
	$(BIN)/ruff check src standin tests benchmarks demo docs examples studies
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m docs.settings --check
	$(BIN)/python -m docs.cli --check

bench: .venv/bench ## Measure against the peers and a bare socket; write docs/performance.md (ARGS=--quick; ONLY=outage for one part).
	$(BIN)/python -m benchmarks$(addprefix .,$(ONLY)) $(ARGS)

soak: .venv/soak ## Let faults loose on near caches and check every read (SECONDS=20, ARGS= for tests/soak.py).
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(ARGS)

dist: .venv/dist ## Build the wheel and the sdist, and use each in an empty environment.
	$(BIN)/python -m tests.dist

docs: .venv/docs ## Write the pages that are made from the code, and build the site: build/site/index.html.
	$(BIN)/python -m docs.settings
	$(BIN)/python -m docs.cli
	$(BIN)/sphinx-build -q -E -W --keep-going -c docs/site -d build/doctrees . build/site
	@echo "The site: $(CURDIR)/build/site/index.html"

clean: ## Remove everything that make has made.
	rm -rf .venv .venvs build dist .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

# One stamp for each set of requirements; each adds to the same environment.
.venv/%: requirements/%.txt pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[django,server]' -r $<
	@touch $@

.venv/check: requirements/test.txt

.venv/soak: requirements/test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[django,server]' -r $<
	@touch $@

.PHONY: help demo test test-all test-one check bench dist docs soak clean
.PRECIOUS: .venv/bin/python
