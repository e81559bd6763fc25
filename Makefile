# Everything runs in .venv, which each target makes by itself when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.made-from-constraints
KERAS := benchmarks/.venv-keras
SERVING := benchmarks/.venv-serving
PEERS ?= keras textbook

# Files of tests side by side, at most one a core; a file stays together, since its tests share what is made once for it.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-tf test-server bench-serving bench-soak lint format reference docs bench clean $(KERAS)

help:  ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-13s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "darkroom needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(STAMP)  ## the main job on scikit-learn's digits: train, evaluate, export, report (into runs/digits)
	$(BIN)/darkroom run digits --out runs/digits --overwrite

test: $(STAMP)  ## the tests, with the coverage they must reach
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not slow' --cov --cov-report=term:skip-covered --cov-fail-under=90

test-all: $(STAMP)  ## the tests, the long ones too
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# tensorflow-serving-api asks for `tensorflow`, which has the same files as tensorflow-cpu: it comes without what it asks for.
test-tf: $(STAMP)  ## install TensorFlow (1.5 GB) into .venv, then the tests of what needs it, of which none may be skipped
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,tf]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps tensorflow-serving-api
	$(BIN)/python -m pytest -rs --skips-fail tests/test_saved_model.py tests/test_tf_serving.py

test-server: $(STAMP)  ## the long tests of the server: 10,000 broken pictures, the steps of the image, all looks of the page
	$(BIN)/python -m pytest -m slow --skips-fail tests/test_limits_hostile.py tests/test_deploy.py
	$(BIN)/python -m pytest -m slow tests/test_browser.py

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff tidy up
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(STAMP)  ## write docs/reference and notebooks/walkthrough.ipynb anew, from the code
	$(BIN)/python docs/generate.py

.venv/.made-for-docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: .venv/.made-for-docs  ## the docs as a site, into build/site
	$(BIN)/mkdocs build

# TensorFlow for the Keras CNN, in an environment of its own: 1.6 GB, so only where it is asked for.
$(KERAS): $(KERAS)/.made-from-requirements
$(KERAS)/.made-from-requirements: benchmarks/requirements-keras.txt constraints.txt
	@echo "Installing TensorFlow into $(KERAS), which takes some minutes"
	@$(PYTHON) -m venv --clear $(KERAS) && $(KERAS)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $< || { echo "TensorFlow was not installed into $(KERAS): see above, or make bench PEERS=textbook"; exit 1; }
	@touch $@

bench: $(STAMP) $(if $(filter keras,$(PEERS)),$(KERAS))  ## measure against peers (DATA=…, PEERS=…, ARGS=…), into benchmarks/results/
	$(BIN)/python benchmarks/bench.py $(or $(DATA),digits) --peers $(PEERS) $(ARGS)

$(SERVING)/.made-from-requirements: benchmarks/requirements-serving.txt
	@$(PYTHON) -m venv --clear $(SERVING) && $(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench-serving: $(STAMP) $(SERVING)/.made-from-requirements  ## measure the server of RUN=… beside its peers, into benchmarks/results/
	$(BIN)/python benchmarks/served_speed.py $(or $(RUN),runs/digits) $(ARGS)

bench-soak: $(STAMP)  ## half an hour of too much load on RUN=…, with broken pictures and killed workers (ARGS=…)
	$(BIN)/python benchmarks/soak.py $(or $(RUN),cifar10) $(ARGS)

clean:  ## remove what was built here; runs/ stays
	rm -rf .venv $(KERAS) $(SERVING) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov build dist src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
