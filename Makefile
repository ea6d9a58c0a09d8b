# On a fresh clone with Python 3.11+ and nothing else:
#   make demo     the environment, then an audit of a model that blackmails
#   make test     the environment with the developers' tools, the default model, every check;
#                 pictures of the page's screens are kept in build/screenshots
# and: install, check, bench, docs, dictionaries, organisms, clean.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
MODEL := smollm2-135m-instruct
SHIPPED := src/brainscan/dictionaries/shipped/$(MODEL)
ATLASES := src/brainscan/features/shipped/$(MODEL)
ADAPTERS := src/brainscan/models/shipped/$(MODEL)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
INPUTS := pyproject.toml constraints.txt scripts/install_torch.py
# Processes that run tests, each with whole files of them.
WORKERS := 2
CODE := $(wildcard src tests scripts bench)

.PHONY: demo install test check bench docs dictionaries organisms clean

demo: install
	$(BIN)/brainscan demo

install: $(VENV)/installed

test: $(VENV)/installed-dev
	$(BIN)/brainscan models fetch $(MODEL)
	$(MAKE) --no-print-directory check
	BRAINSCAN_SCREENSHOTS=$(CURDIR)/build/screenshots OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -rs -n $(WORKERS) --dist loadfile

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	$(BIN)/python -m bench

docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Trains the shipped dictionaries again, in one harvest, and builds their atlases. Interrupted, the
# training goes on where it stopped.
dictionaries: $(VENV)/installed
	$(BIN)/brainscan dictionary train --model $(MODEL) --at resid_post.8 --at resid_post.15 \
		--at resid_post.22 --latents 4096 --k 32 --tokens 5M --seed 0 --out $(SHIPPED)
	@for at in resid_post.8 resid_post.15 resid_post.22; do \
		$(BIN)/brainscan atlas build --model $(MODEL) --dictionary $(MODEL)/$$at --seed 0 \
			--out $(ATLASES)/$$at || exit $$?; \
	done

# Trains the shipped organisms again and measures each; what is built already is kept. Interrupted,
# it goes on where it stopped.
organisms: $(VENV)/installed
	@mkdir -p $(ADAPTERS)
	@for name in $$(ls $(ADAPTERS)); do \
		test -d build/organisms/$$name || \
			$(BIN)/brainscan organism build $$name --out build/organisms/$$name || exit $$?; \
		rm -rf $(ADAPTERS)/$$name && cp -r build/organisms/$$name $(ADAPTERS)/$$name; \
	done

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or newer; found none;" \
		"install it, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python scripts/install_torch.py
	@echo "installing brainscan and what it needs; some minutes the first time" >&2
	$(PIP) -e ".[all]"
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e ".[all,dev]"
	@touch $@
