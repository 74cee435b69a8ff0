"""The package as a whole: what importing costs, and which names are public."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import grimp
import pytest

import brainseg

ROOT = Path(__file__).parents[1]
LAYERS = ("models", "losses", "transforms", "inference", "data", "visualization", "benchmark")
LIGHT = [f"brainseg.{layer}" for layer in LAYERS]
MODULES = [
    *LIGHT,
    "brainseg.memory",
    "brainseg.models.mask_dino",
    "brainseg.metrics",
    "brainseg.metrics.functional",
    "brainseg.testing",
    "brainseg.training",
]


# Runs each program in a copy of a process that has imported torch and numpy, and prints what it has loaded.
COPIES = """
import json, os, sys
import torch, numpy.random
for program in sys.argv[1:]:
    if os.fork() == 0:
        before = set(sys.modules)
        exec(program)
        print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, program
"""
BUILD = "from brainseg.models import create_model; create_model('unext')(torch.rand(2, 3, 64, 64))"


def printed(*arguments: str) -> list[Any]:
    command = [sys.executable, "-c", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_importing_a_layer_and_building_a_network_load_torch_and_numpy_alone() -> None:
    programs = [*(f"import {layer}" for layer in LIGHT), BUILD]
    loaded = dict(zip(programs, printed(COPIES, *programs), strict=True))
    assert all("brainseg" in modules for modules in loaded.values())
    allowed = sys.stdlib_module_names | {"brainseg", "torch", "numpy", "triton"}  # the last by parts of torch for GPUs
    heavy = {program: set(modules) - allowed for program, modules in loaded.items()}
    assert heavy == {program: set() for program in programs}


def test_importing_the_package_loads_nothing_heavy() -> None:
    names = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    (before,), (after,) = (printed(f"import json, sys\n{code}{names}") for code in ("", "import brainseg\n"))
    assert set(after) - set(before) - sys.stdlib_module_names == {"brainseg"}


def test_public_names_are_those_of_the_inventory() -> None:
    inventory = json.loads((ROOT / "tests" / "public_names.json").read_text())
    assert inventory == {module: sorted(import_module(module).__all__) for module in MODULES}


def test_public_names_are_documented() -> None:
    for module in MODULES:
        for name in import_module(module).__all__:
            assert getattr(import_module(module), name).__doc__, f"{module}.{name}"


def test_no_two_files_import_each_other() -> None:
    graph = grimp.build_graph("brainseg", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert [(a, b) for a, imported in imports.items() for b in imported if a in imports[b]] == []


def test_the_version_is_the_same_wherever_it_is_told() -> None:
    cited = (ROOT / "CITATION.cff").read_text().partition("\nversion: ")[2].split()
    heading = re.search(r"^## (\d+\.\d+\.\d+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert cited[:3] == [brainseg.__version__, "date-released:", heading[2]]
    assert heading[1] == brainseg.__version__


@pytest.mark.parametrize("name", MODULES)
def test_no_public_name_hides_a_module(name: str) -> None:
    """`import brainseg.inference.x as x` gives what the package calls x, which is to be the module."""
    package = import_module(name)
    files = {module.name for module in iter_modules(getattr(package, "__path__", ()))}
    assert not files & {*package.__all__}
