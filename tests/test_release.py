"""The wheel and the source distribution: what they hold, and that the wheel works where nothing else is installed."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.requirements import ROOT
from tests.test_extras import ENOUGH

BUILDING = """
import sys
from hatchling.build import build_sdist, build_wheel
build_sdist(sys.argv[1])
build_wheel(sys.argv[1])
"""
DATA = (".tif", ".tiff", ".nii", ".gz", ".npy", ".npz", ".zip", ".parquet")


def run(*command: str | Path, folder: Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-c", BUILDING, folder, folder=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("brainseg_torch-*-py3-none-any.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "src" / "brainseg"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {path.relative_to(package.parent).as_posix() for path in files}
    for kind in ("py.typed", "weights/unext/lgg/model.safetensors", "training/configs/course.yaml", "report/page.html"):
        assert f"brainseg/{kind}" in held
    assert len(licences) == 2
    assert wheel.stat().st_size < 20e6


def test_the_source_distribution_holds_no_data_and_nothing_large(dist: Path) -> None:
    (path,) = dist.glob("brainseg_torch-*.tar.gz")
    with tarfile.open(path) as archive:
        members = {member.name.partition("/")[2]: member.size for member in archive.getmembers() if member.isfile()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "src/brainseg/__init__.py"} <= members.keys()
    assert [name for name in members if name.endswith(DATA)] == []
    assert [name for name in members if any(part.startswith(".") for part in Path(name).parts[:-1])] == []
    assert {name: size for name, size in members.items() if size > 7e6} == {}


@pytest.mark.network
@pytest.mark.parametrize("extra", ENOUGH)
def test_the_wheel_and_one_extra_are_enough_in_a_clean_environment(extra: str, wheel: Path, tmp_path: Path) -> None:
    import torch

    version = torch.__version__.partition("+")[0]
    # Of two builds of one version pip prefers the small one for the CPU where it carries it.
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"torch=={version}", f"{wheel}[{extra}]", folder=tmp_path)
    run(python, "-c", ENOUGH[extra], folder=tmp_path)
    typed = "(pathlib.Path(brainseg.__file__).parent / 'py.typed').exists()"
    run(python, "-c", f"import brainseg, pathlib; assert {typed}", folder=tmp_path)
    if not extra:
        block = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        run(python, "-W", "error", "-c", block, folder=tmp_path)
