# make help explains every target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/digits

DEMO_TRAIN := accelerate launch train/train_ssd.py --config configs/digits.yaml
DEMO_SAMPLE := python sample/sample_ssd.py --model $(RUN) --num 64 --steps 40 --seed 0 --grid $(RUN)/samples.png --animation $(RUN)/coarse_to_fine.gif
DEMO_EVAL := python sample/eval_fid.py --model $(RUN) --ref digits --features pixels,efficientnet_lite0 --num 512 --steps 40

# One process per core, each with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-browser test-portable lint format type bench paper docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## create .venv and install the project with its development tools

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": run  make $(MAKECMDGOALS) PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e ".[dev,docs,hub,wds,features]"
	@touch $@

demo: install  ## train on handwritten digits, sample and evaluate (about 4 minutes on two CPU cores with AVX-512)
	@printf '%s\n' 'The three commands of this demo, the same for your own data:' '' '  $(DEMO_TRAIN)' '  $(DEMO_SAMPLE)' '  $(DEMO_EVAL)' ''
	$(DEMO_TRAIN)
	$(DEMO_SAMPLE)
	$(DEMO_EVAL)
	@printf '%s\n' '' 'Made in $(RUN)/:' \
	  '  model_index.json, unet/, scheduler/   the pipeline: SSDPipeline.from_pretrained("$(RUN)")' \
	  '  samples.png                           64 new digits' \
	  '  coarse_to_fine.gif                    how they grow, level by level' \
	  '  metrics.json                          distance to the real digits, and how readable the new ones are' \
	  '  log.csv, tensorboard/                 loss per level (tensorboard --logdir $(RUN))' \
	  '  samples/, checkpoints/                grids during training, and the state to resume from'

test: install lint type  ## lint, type-check, and run the fast tests
	$(PYTEST)

test-slow: install  ## run the slow tests too
	$(PYTEST) -m "not gpu"

test-browser: install  ## click through the page of ssd demo in Chromium, which must be there (apt-get install chromium)
	$(BIN)/python -m pip install --quiet -e ".[demo,browser]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser -m browser

# Instruction sets of PyTorch's own kernels and of oneDNN's, and numbers of threads.
PORTABLE_SETTINGS := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=SSE41 \
  ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 OMP_NUM_THREADS=2
PORTABLE_TESTS := tests/operators tests/process tests/flexi_unet tests/pipelines tests/test_scheduling_ssd.py \
  tests/test_pipeline_ssd.py tests/test_other_schedulers.py tests/sampling/test_many_images.py \
  tests/publishing/test_published_checkpoints.py::test_the_published_outputs_on_every_route \
  --ignore=tests/flexi_unet/test_flops.py

test-portable: install  ## run the numerical tests as if on other CPUs (six runs)
	@for setting in $(PORTABLE_SETTINGS); do \
	  echo "$$setting"; \
	  env OMP_NUM_THREADS=1 $$setting $(BIN)/python -m pytest -q $(PORTABLE_TESTS) || exit 1; \
	done

lint: install  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install  ## check types
	$(BIN)/mypy

bench: install  ## measure on this machine and write benchmarks/results.md (under 10 minutes)
	$(BIN)/python benchmarks/run.py

paper: install  ## train and measure the paper's models in miniature (about half an hour on two CPU cores)
	$(BIN)/python -m ssd.paper --scale small

docs: install  ## build the site into build/docs; it runs the tutorial (some minutes, no internet but for installing peft)
	$(BIN)/python -m pip install --quiet -e ".[lora]"
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going docs build/docs
	@echo 'open build/docs/index.html'

clean:  ## remove caches and build products (not .venv, not runs)
	rm -rf build dist docs/generated docs/tutorial/runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
