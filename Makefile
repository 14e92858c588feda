# `make help` lists the targets.  Each of them sets up .venv first, once.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TPU := .venv-tpu
WORKERS ?= 2
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test quick docs examples site lint typecheck bench compiled lock second release clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# Whatever creates the environment is named here, so that a changed lock file
# installs anew and an unchanged one installs nothing.
$(READY): requirements.txt setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .; \
	else \
	  $(BIN)/python -m pip install --quiet -r requirements.txt && \
	  $(BIN)/python -m pip install --quiet --no-deps -e .; \
	fi
	@touch $@

demo: $(READY)  ## train five CNNs on real digits, attack them with every frequency
	$(BIN)/python -m experiments demo

test: $(READY)  ## run all tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

quick: $(READY)  ## run the tests of daily work, without processes, documents and real data
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

docs: examples site  ## run all examples and build the site

examples: $(READY)  ## run the examples of all documents, and compare what they print
	$(BIN)/python docs/examples.py README.md docs/*.md

site: $(READY)  ## build the site in docs/_build/html with its notebooks
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

lint: $(READY)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(READY)  ## check types
	$(BIN)/mypy

$(VENV)/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: $(VENV)/.bench  ## measure speed against peers in the same run (installs PyTorch)
	$(BIN)/python -m benchmarks

# Apart, because jax looks for a TPU wherever libtpu is installed.
$(TPU)/.ready: $(READY)
	$(PYTHON) -m venv $(TPU)
	$(BIN)/uv pip install --quiet --python $(TPU)/bin/python -r requirements.txt "jax[tpu]"
	@touch $@

compiled: $(TPU)/.ready  ## compile three programs for a TPU, which need not be there
	mkdir -p build && rm -f build/compiled.jsonl
	$(TPU)/bin/python -m benchmarks.compiled --rows build/compiled.jsonl \
	  --topology v5e:2x2 --programs absum-resnet18 single-fourier-sweep pgd-sweep

lock: $(READY)  ## resolve requirements.txt anew
	$(BIN)/uv pip compile --universal --python-version 3.11 --upgrade --extra experiments --extra dev --extra docs --extra release \
	  --custom-compile-command "make lock" --quiet setup.cfg -o requirements.txt

second: $(READY)  ## on a second Python, test what depends on jax most
	.ci/second-python

release: $(READY)  ## build sdist and wheel in dist/, and check both in bare environments
	.ci/release

clean:  ## remove the environment and the caches, never runs/ or results/
	rm -rf $(VENV) $(TPU) .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist docs/_build *.egg-info
