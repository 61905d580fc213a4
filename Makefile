# make search: set up and run the default search. make test: set up and run the tests.
PYTHON ?= python3
BIN := .venv/bin
SEARCH := .venv/.search
DEV := .venv/.dev
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: search test check reference clean

search: $(SEARCH)
	$(BIN)/python run_search.py --space search_spaces/kd.yaml

test: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
