# `make demo` and `make test` are all that a fresh machine with Python (3.11 or later) and make needs.
PYTHON ?= python3
# Without a GPU this release is the small CPU build on machines that carry it; everywhere else any allowed torch will do.
TORCH ?= $(if $(shell command -v nvidia-smi),torch,torch==2.13.0)
# Two processes, each on one thread (conftest.py); a file stays in one of them, since its tests share what is dear to make.
PYTEST = -m pytest -n 2 --dist loadfile

.PHONY: demo docs test test-all test-oldest test-newest release-check lint

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

# The lowest version of every core dependency that pyproject.toml allows, and the newest of all that there is; with
# PYTHON=python3.13 those of another Python, in an environment of its own.
test-oldest test-newest: test-%: .venv-%-$(notdir $(PYTHON))/installed
	$(<D)/bin/python $(PYTEST) -m "not slow and not gpu and not network"

.venv-oldest-$(notdir $(PYTHON))/installed: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $$($(PYTHON) -c "import tomllib; print(*(d.replace('>=', '==') for d in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))") --editable ".[dev]"
	touch $@

.venv-newest-$(notdir $(PYTHON))/installed: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager torch --editable ".[dev]"
	touch $@

# Before a release: what wheel and source distribution hold, licences, each extra alone, here and in clean environments.
release-check: .venv/installed
	.venv/bin/python -m pytest tests/test_release.py tests/test_extras.py tests/test_licences.py tests/test_upgrading.py
