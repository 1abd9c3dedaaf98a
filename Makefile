# `make demo`: the main job on the embedded data, from nothing to a printed Table 4. `make check`: lint, types and unit tests.
# `make test`: everything that must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo check test soak lint docs bench gpu clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/bench run --data demo --pretext random_init,cgan_color --downstream voc_seg --out runs/demo
	$(BIN)/bench report --out runs/demo --html

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/pytest -n 2 -m unit

test: lint docs
	$(BIN)/pytest -n 2 --dist loadfile

# The documentation as a web site in site/: reference pages written from the code, then a build that a broken link fails.
docs: $(VENV)/docs-installed
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

# Kills, failing writes, processes side by side and broken files in their thousands: under an hour on two cores.
soak: $(VENV)/installed
	$(BIN)/pytest --soak tests/stress/faults
	$(BIN)/python -m tests.stress

# Speed and memory, measured on this machine; the authors' step needs TensorFlow in an environment of its own.
bench: $(VENV)/installed $(VENV)-keras/installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	KERAS_PYTHON=$(VENV)-keras/bin/python $(BIN)/python -m tests.benchmarks

# The first minutes on a GPU, under 8: results beside the processor's, a resumed run, memory that runs out, speed. Writes runs/gpu.
# Says so where there is none.
gpu: $(VENV)/installed
	$(BIN)/python -m tests.gpu

$(VENV)-keras/installed:
	$(PYTHON) -m venv $(VENV)-keras
	$(VENV)-keras/bin/python -m pip install --quiet tensorflow-cpu
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-keras build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
