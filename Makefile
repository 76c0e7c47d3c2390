# make demo    the whole line on built-in synthetic data, with a report
# make test    the tests
# make check   lint, format, types
# make wheel   the wheel, smoke-tested in a clean environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check wheel clean

demo: $(VENV)/.installed
	$(BIN)/recdistill demo --out runs/demo

test: $(VENV)/.tested
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

wheel: $(VENV)/.tested
	rm -rf dist build/smoke
	$(BIN)/python -m build --wheel --outdir dist
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	build/smoke/bin/recdistill doctor
	cd build/smoke && bin/recdistill demo --out demo --set student.training.epochs=2 --set teacher.training.epochs=2

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[plots]'
	touch $@

$(VENV)/.tested: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[plots,dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist runs
