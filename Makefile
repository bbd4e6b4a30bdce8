# make quickstart · make test · make check · make bench
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test check test-all bench pocket-clip clean
.DEFAULT_GOAL := quickstart

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit("compress needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.cpu: $(VENV)/.made setup.cfg constraints.txt
	$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) -e '.[cpu]'
	touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(PIP) -e '.[cpu,dev]'
	touch $@

quickstart: $(VENV)/.cpu   ## the embedded CLIP in 4 bits: measured, gated, released
	$(BIN)/compress quantize --recipe int4_clip.yaml

test: $(VENV)/.dev         ## every default test
	$(BIN)/python -m pytest

check: $(VENV)/.dev        ## format, lint, types, layers, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not real and not gpu" tests/unit tests/contract

bench: $(VENV)/.dev        ## speed and size, paired, in one run; rewrites docs/benchmarks.md
	$(BIN)/python benchmarks/speed.py

pocket-clip: $(VENV)/.dev  ## train the embedded model again
	$(BIN)/python tools/train_pocket_clip.py --output compress/bundled/pocket_clip

clean:
	rm -rf $(VENV) runs artifacts/staging
