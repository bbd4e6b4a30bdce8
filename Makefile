# make quickstart · make test · make check · make bench · make test-all
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

OLD := compress needs Python 3.10 or newer; name one: make PYTHON=python3.12

.PHONY: quickstart test test-all break-each lint check bench bench-gates bench-large bench-heal pocket-clip clean
.DEFAULT_GOAL := quickstart

# The stamps .made, .cpu and .dev say what is installed; each is touched last, so a failed install leaves none.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo '$(OLD)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.cpu: $(VENV)/.made setup.cfg constraints.txt
	@echo 'installing into $(VENV), which takes minutes the first time'
	$(PIP) -e '.[cpu]'
	@touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(PIP) -e '.[cpu,dev,signing,index,bnb,tensorboard]'
	@touch $@

quickstart: $(VENV)/.cpu   ## the embedded CLIP in 4 bits: measured, gated, released
	$(BIN)/compress quantize --recipe int4_clip.yaml

test: $(VENV)/.dev         ## every default test, as many files at once as there are cores, the longest early
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.dev     ## every test, 20,000 mutated files, and every property broken once: most of an hour
	$(BIN)/python -m pytest -m '' --fuzz 10000
	$(BIN)/python tools/break_each.py

break-each: $(VENV)/.dev   ## break every property of docs/survival.md once and see its tests go red
	$(BIN)/python tools/break_each.py

lint: $(VENV)/.dev         ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint                ## the same, and the fast tests
	$(BIN)/python -m pytest -m 'not long and not slow and not real and not gpu' tests/unit tests/contract

bench: $(VENV)/.dev        ## speed and size, paired, in one run; rewrites docs/benchmarks.md
	$(BIN)/python benchmarks/speed.py

bench-gates: $(VENV)/.dev  ## false passes and power of the gates, simulated
	$(BIN)/python benchmarks/gates.py

bench-large: $(VENV)/.dev  ## time and memory against model size, 0.1 B to 6 B: 40 GB of disk and an hour or two
	for shape in vit-b-32 vit-l-14 vit-bigg-14 internvit-6b; do \
	  $(BIN)/python benchmarks/large.py make $$shape runs/large && \
	  $(BIN)/python benchmarks/large.py run $$shape runs/large --kill || exit 1; done
	$(BIN)/python benchmarks/large.py table runs/large

bench-heal: $(VENV)/.dev   ## what a short training brings back: hours on two cores
	$(BIN)/python benchmarks/epochs.py
	$(BIN)/python benchmarks/heal.py

pocket-clip: $(VENV)/.dev  ## train the embedded model again; resumes where it was stopped
	$(BIN)/python tools/train_pocket_clip.py --output compress/bundled/pocket_clip

clean:                     ## remove what can be made again; released and blocked artifacts stay
	rm -rf $(VENV) runs artifacts/staging artifacts/cache
