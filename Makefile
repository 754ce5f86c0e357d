# Everything a newcomer needs starts here; `make help` lists it. Needs python3 (3.11 or newer), make and a C++ compiler.
VENV ?= .venv
# Test processes; a file of tests stays in one of them, and the longest files come first (tests/conftest.py).
TEST_PROCESSES ?= 2
IN_PARALLEL := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.cami2v-installed
INSTALL_LOG := $(VENV)/install.log

# Two processes on one machine must not ask for more threads than it has.
export OMP_NUM_THREADS ?= 1
export TORCH_EXTENSIONS_DIR ?= $(abspath $(VENV))/torch_extensions
# The console scripts of the environment (ninja, torchrun) are found by whatever starts them.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo check test bench bench-gpu clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install everything into it (again when the requirements change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; name another one: make setup PYTHON=python3.12" >&2; exit 2; }
	@echo "[1/3] creating the virtual environment $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "error: $(PYTHON) cannot create virtual environments; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "[2/3] installing cami2v and its requirements (several GB the first time, some minutes; log: $(INSTALL_LOG))"
	@$(BIN)/python -m pip install --progress-bar off --disable-pip-version-check -c constraints.txt -e '.[app,dev,demo]' \
	  > $(INSTALL_LOG) 2>&1 || { tail -n 20 $(INSTALL_LOG) >&2; echo "error: installation failed, see $(INSTALL_LOG)" >&2; exit 2; }
	@echo "[3/3] importing everything and compiling DeepSpeed's CPU communication (about a minute)"
	@$(BIN)/python -m launch.doctor doctor.compile=true >> $(INSTALL_LOG) 2>&1 \
	  || { tail -n 40 $(INSTALL_LOG) >&2; echo "error: the installation does not work, see $(INSTALL_LOG)" >&2; exit 2; }
	@touch $@

demo: setup  ## the whole story on two CPU cores: data, training, a crash, resume, sampling, scores, a report
	@$(BIN)/python -m launch.demo

check: setup  ## format, lint, types and the fast tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(IN_PARALLEL) -m "not slow and not slurm and not gpu and not browser"

test: setup  ## every test this machine can run
	$(BIN)/python -m pytest $(IN_PARALLEL) --durations=15

bench: setup  ## on the CPU: epipolar attention, steps of every method, the trainer, the loader; writes docs/benchmarks/<date>-<hardware>.md
	@$(BIN)/python -m tools.benchmark --page

bench-gpu: setup  ## the same code at full size on one GPU: 256x256 and 320x512, eager and compiled
	@$(BIN)/python -m tools.benchmark attention steps trainer checkpointing growth --page --device cuda --compile inductor --compile-mode reduce-overhead \
	  --backbone dynamicrafter_256 dynamicrafter_512 --camera cami2v

clean:  ## remove caches and build products (never runs/ or $(VENV))
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 -r rm -rf
