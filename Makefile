# make demo: install and train the demo. make test: install and check everything. make docs: the documentation as a site.
# PYTHON=... picks an interpreter.
SHELL := /bin/sh
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test docs install lock clean

demo: $(INSTALLED)
	$(BIN)/python -m aim.train +experiment=demo
	@echo "look at it: $(BIN)/aim report runs/demo; then docs/first-hour.md: a classifier of your own videos"

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

# Broken links are errors. The page of settings is written again, from configs/.
docs: $(INSTALLED)
	$(BIN)/python scripts/settings_reference.py
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . build/docs
	cp build/docs/README.html build/docs/index.html
	@echo "look at it: build/docs/index.html"

install: $(INSTALLED)

# The virtual environment, as the lock file says, by the newest Python for which all locked packages have wheels.
# A newer one is tried where there is no other, or as PYTHON=...: its pip names the package without a wheel.
$(INSTALLED): requirements.lock pyproject.toml
	@set -e; found=""; \
	for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3 python; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "aim: no Python 3.11 or newer with venv and ensurepip was found;" >&2; \
	    echo "aim: install one (Debian, Ubuntu: apt install python3 python3-venv), or run make PYTHON=/path/to/python3.12" >&2; \
	    exit 2; \
	fi; \
	echo "installing into $(VENV) with $$($$found --version); this downloads some GB once"; \
	"$$found" -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || { \
	    echo "aim: not all of requirements.lock could be installed with $$($$found --version);" >&2; \
	    echo "aim: it has wheels for Python 3.11 to 3.14; for one of these run make PYTHON=/path/to/python3.14" >&2; \
	    exit 2; \
	}; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .; \
	touch $@

# Write the lock files again; needs uv.
lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
