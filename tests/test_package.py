"""The package as a whole: what importing costs, which names are public, and that a wheel of it works."""

import json
import subprocess
import sys
import venv
from importlib import import_module
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("models", "losses", "transforms", "inference", "data", "visualization", "benchmark")
LIGHT = [f"brainseg.{layer}" for layer in LAYERS]
MODULES = [
    *LIGHT,
    "brainseg.memory",
    "brainseg.models.mask_dino",
    "brainseg.metrics",
    "brainseg.metrics.functional",
    "brainseg.training",
]


def modules_after(code: str) -> set[str]:
    code = f"{code}\nimport sys, json\nprint(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_layer_loads_torch_and_numpy_alone(module: str) -> None:
    allowed = modules_after("import torch, numpy.random") | sys.stdlib_module_names | {"brainseg"}
    assert modules_after(f"import {module}") - allowed == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_after("import brainseg") - set(sys.stdlib_module_names) - modules_after("") == {"brainseg"}


def test_building_a_network_loads_no_more() -> None:
    allowed = modules_after("import torch, numpy.random") | sys.stdlib_module_names | {"brainseg"}
    code = "import torch; from brainseg.models import create_model; create_model('unext')(torch.rand(2, 3, 64, 64))"
    assert modules_after(code) - allowed == set()


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


@pytest.mark.network
def test_a_wheel_without_extras_runs_the_first_block_of_the_readme(tmp_path: Path) -> None:
    import torch

    def run(*command: str | Path) -> None:
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert result.returncode == 0, result.stderr[-2000:]

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("brainseg_torch-*.whl")
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    version = torch.__version__.partition("+")[0]
    run(python, "-m", "pip", "install", f"torch=={version}")
    run(python, "-m", "pip", "install", f"torch=={version}", wheel)
    block = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "block.py").write_text(block)
    run(python, "-W", "error", tmp_path / "block.py")
    run(python, "-c", "import brainseg, pathlib; assert (pathlib.Path(brainseg.__file__).parent / 'py.typed').exists()")
