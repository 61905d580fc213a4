# make search: set up and run the default search. make test: set up and run the tests.
PYTHON ?= python3
BIN := .venv/bin
SEARCH := .venv/.search
DEV := .venv/.dev
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# What another version of a package may break; a whole run takes an hour.
VERSION_TESTS = tests/unit tests/integration/test_score_export.py tests/e2e/test_commands.py

.PHONY: search test test-oldest test-newest check reference clean

search: $(SEARCH)
	$(BIN)/python run_search.py --space search_spaces/kd.yaml

test: $(DEV)
	$(BIN)/python -m pytest -n 3 --dist worksteal

# The same at the oldest versions that pyproject.toml allows, and at the newest releases, each in
# a virtual environment of its own. TORCH is a version: where only one comes without CUDA, name it.
test-oldest: TORCH ?= 2.11.0
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/oldest_versions.py $(TORCH) > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --constraint .venv-oldest/constraints.txt --editable '.[dev]'
	.venv-oldest/bin/python -m pytest $(VERSION_TESTS)

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet $(and $(TORCH),torch==$(TORCH)) --editable '.[dev]'
	.venv-newest/bin/python -m pytest $(VERSION_TESTS)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent --no-warn-return-any \
		--allow-untyped-defs --allow-untyped-calls --exclude plain_ray.py benchmarks

# What is made from the settings in the code: run it after each change of them.
reference: $(SEARCH)
	$(BIN)/python -m kdsearch schema > search_spaces/schema.json
	$(BIN)/python -m kdsearch schema --method memory > search_spaces/schema-memory.json
	$(BIN)/python -m kdsearch schema --markdown > docs/space.md

# Torch first and pinned: any build of this version will do, and nothing after it may pull another.
$(SEARCH): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "kdsearch needs Python 3.11 or newer; found: $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[search]'
	@touch $(SEARCH)

# Only tests need WFDB records, trackers, dashboards, ONNX and a browser.
$(DEV): $(SEARCH)
	$(INSTALL) --editable '.[dev]'
	@touch $(DEV)

clean:
	rm -rf .venv .venv-oldest .venv-newest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
