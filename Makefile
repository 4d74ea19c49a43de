# Every chore is one word; CI calls the same words. `make demo` and `make test` work as the first command after a clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
READY := $(VENV)/.ready

# Where Python may not write bytecode beside its sources, it is kept in the environment: else each of the many processes
# of tests and chains would compile torch, Lightning and all else anew, for 10 s and more.
ifdef PYTHONDONTWRITEBYTECODE
export PYTHONDONTWRITEBYTECODE =
export PYTHONPYCACHEPREFIX = $(abspath $(VENV))/bytecode
endif

.PHONY: help demo demo-detect test test-slurm check format bench docs lock clean

help:
	@echo "make demo    the whole chain on a small simulated survey (under 4 minutes after the installation)"
	@echo "make demo-detect    a detector learns on a simulated sky and is compared with SExtractor (under 15 minutes)"
	@echo "make test    all tests; SKYLOOM_REAL_DATA=FOLDER adds those on real images"
	@echo "make test-slurm    tests on a real Slurm, started on this machine (root; packages slurm-wlm and munge)"
	@echo "make check   format, lint, types, import layers and configuration"
	@echo "make bench   speed and memory against named peers, as ratios"
	@echo "make docs    the documentation as a web site in site/"
	@echo "make lock    resolve requirements.lock anew from pyproject.toml"

# The environment: uv from the registry, everything else from the hash-checked lock.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "skyloom needs Python 3.11, 3.12 or 3.13, found %d.%d; try: make PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

demo-detect: $(READY)
	$(BIN)/python examples/demo_detect.py

# Each core has a worker of its own: threads of libraries would only wait for each other. Long files come first.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/slurm -n logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

# More files at a time than a small machine has cores: each has a Slurm of its own, and much of the time is waiting.
test-slurm: $(READY)
	$(BIN)/python -m pytest tests/slurm -n 3 --dist=loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n logical --maxprocesses=8 tests/test_layers.py tests/test_conf.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python benchmarks/run.py

docs: $(READY)
	$(BIN)/mkdocs build --strict

lock:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --extra dev --extra analysis --extra mlflow --extra optuna --extra slurm --extra detection -o requirements.lock

clean:
	rm -rf $(VENV) demo site .pytest_cache .mypy_cache .ruff_cache
