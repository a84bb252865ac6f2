PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
EXTRA := $(if $(filter Linux,$(shell uname)),$(if $(shell command -v nvidia-smi),cuda,cpu),cpu)

.PHONY: setup check test test-slow fuzz bench bench-gpu smoke docs docs-images

setup: ## a virtual environment with everything for development
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e ".[$(EXTRA),dev]"
	$(BIN)/python scripts/doctor.py

check: ## what a commit must pass besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: ## minutes, on two cores
	$(BIN)/pytest -n 2

test-slow: ## trains; much longer
	$(BIN)/pytest -m slow

fuzz: ## 100,000 mutated instruments' files through the readers; some minutes
	$(BIN)/pytest -m slow -s tests/dataloaders/test_eis_files_fuzz.py

bench: ## one JSON line a variant
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/step_time.py --model all

bench-gpu: ## on one NVIDIA GPU: kernels checked, then ms per training step and images a second
	$(BIN)/python benchmarks/group_norm.py
	for model in unet36 dit_b; do \
	  $(BIN)/python benchmarks/step_time.py --device gpu --model $$model --loss all --precision bf16 && \
	  $(BIN)/python benchmarks/sampling.py --device gpu --model $$model || exit 1; \
	done

smoke: ## one short run from the command line to a checkpoint
	$(BIN)/python launcher.py run_name=smoke max_steps=20 overwrite=true trackio.enabled=false

docs: ## the documentation as a static site in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-images: docs ## docs/images/site_*.png: the site in a Chromium without a window
	$(BIN)/python scripts/screenshot_docs.py out=docs/images
