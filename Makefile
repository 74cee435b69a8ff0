# `make demo` and `make test` are all that a fresh machine with Python (3.11 or later) and make needs.
PYTHON ?= python3
# Without a GPU this release is the small CPU build on machines that carry it; everywhere else any allowed torch will do.
TORCH ?= $(if $(shell command -v nvidia-smi),torch,torch==2.13.0)
# Two processes, each on one thread (conftest.py); a file stays in one of them, since its tests share what is dear to make.
PYTEST = -m pytest -n 2 --dist loadfile

.PHONY: demo docs test test-all test-oldest lint

demo: .venv/installed
	.venv/bin/brainseg demo

# The site in build/site: every page, and a reference of every public name; a dead link stops it. To look at it, with its
# search: .venv/bin/python -m http.server --directory build/site
docs: .venv/installed
	.venv/bin/python docs/site/build.py

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: lint
	.venv/bin/python $(PYTEST) -m "not slow and not gpu and not network"

test-all: lint
	.venv/bin/python $(PYTEST) --hypothesis-profile=thorough

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet "$(TORCH)"
	.venv/bin/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	touch $@

# The lowest version of every core dependency that pyproject.toml allows.
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python $(PYTEST) -m "not slow and not gpu and not network"

.venv-oldest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet $$($(PYTHON) -c "import tomllib; print(*(d.replace('>=', '==') for d in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))") --editable ".[dev]"
	touch $@
