# One environment for everything, made on first use outside the checkout: see scripts/setup_environment.py.
# HOST (or COMFYUI_PATH) selects a ComfyUI: a folder, or a version such as 0.18.2; otherwise 0.3.75 from PyPI.

SYSTEM_PYTHON ?= $(shell command -v python3.11 || command -v python3)
SETUP = $(SYSTEM_PYTHON) scripts/setup_environment.py
RUN = $(SETUP) --run
SEED ?= 0
TESTS ?= tests
WORKERS ?= 2

ifdef HOST
export COMFYUI_PATH := $(HOST)
endif

# Two cores and small tensors: more threads only wait for each other.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: help demo snapshot thumbnails pictures figures locales settings test soak fuzz bench gpu-check lint eval clean python

help:
	@echo "make demo    a real ComfyUI, five reference videos, a contact sheet in demo/output"
	@echo "make test    all tests (TESTS=tests/core for some of them, HOST=0.18.2 for another ComfyUI,"
	@echo "             WORKERS=0 for one process)"
	@echo "make soak    a thousand random sequences of attaching, applying, cloning, sampling and unloading;"
	@echo "             a hundred prompts (N=n) queued, interrupted, taken back and refused;"
	@echo "             and a training killed at fifty random moments"
	@echo "make fuzz    damaged files of every kind that is read (N=10000 of each, SEED=n)"
	@echo "make bench   speed, as ratios"
	@echo "make gpu-check  training on a CUDA device: precision, memory, time; says why where there is none"
	@echo "make eval    what the shipped models transfer, measured (SEED=n, N=samples a set)"
	@echo "make lint    ruff"
	@echo "make snapshot  node ids and inputs that shared graphs rely on, after one was added"
	@echo "make settings  all settings of Train in its help page"
	@echo "make locales   locales/en from the nodes; what zh and ja lack is printed"
	@echo "make figures   icon, banner and the figure of docs/how_it_works.md"
	@echo "make thumbnails  the templates' moving pictures and README's, by running the graphs"
	@echo "make pictures  the nodes' pictures in the help pages, from the graphs that ship"
	@echo "make python  the path of the environment's interpreter"
	@echo "make clean   remove what was made inside the checkout"

demo:
	@$(RUN) -m demo.run

test:
	@$(RUN) -m pytest -q -n $(WORKERS) --dist loadfile $(TESTS)

soak:
	@SEQUENCES=1000 PROMPTS=$(or $(N),100) KILLS=50 $(RUN) -m pytest -q -s --timeout=0 tests/host/test_sequences.py tests/host/test_queue.py tests/core/training/test_killed.py

fuzz:
	@FUZZ_FILES=$(or $(N),10000) FUZZ_SEED=$(SEED) $(RUN) -m pytest -q -s --timeout=0 -k damaged_file tests/core/files/test_fuzz.py tests/host/files/test_fuzz_host.py

bench:
	@$(RUN) -m benchmarks

gpu-check:
	@$(RUN) -m benchmarks.gpu_check

eval:
	@$(RUN) lab/evaluate.py --seed $(SEED) $(if $(N),--n $(N))

snapshot:
	@$(RUN) scripts/snapshot_schemas.py

settings:
	@$(RUN) -m scripts.settings_help

locales:
	@$(RUN) -m scripts.make_locales

figures:
	@$(RUN) -m scripts.draw_pictures

thumbnails:
	@$(RUN) -m scripts.thumbnails $(NAMES)

pictures:
	@$(RUN) -m scripts.help_pictures

lint:
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .

python:
	@$(SETUP)

clean:
	rm -rf demo/output build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
