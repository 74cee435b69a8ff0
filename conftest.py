"""One thread for every test; README and docs pages as tests.

A page runs in a folder of its own, with synthetic slices in place of real ones; of the recipes the commands run too.
"""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

# Small images on one thread: more of them only wait for each other. Before torch is there, and for what tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from brainseg.data import write_phantoms
from brainseg.models import MaskDINO, UNet, UNeXt, registry
from tests.command import call
from tests.hub import stub
from tests.official import official_mask_dino, official_state_dict


@pytest.fixture(scope="session")
def mask_dino_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the authors' training writes it."""
    path = tmp_path_factory.mktemp("official") / "maskdino_r50.pth"
    model = MaskDINO(conv_dim=32, hidden_dim=32, encoder_layers=1, decoder_layers=1)
    torch.save({"model": official_mask_dino(model), "iteration": 1}, path)
    return path


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory, mask_dino_file: Path) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("page")
    (folder / mask_dino_file.name).symlink_to(mask_dino_file)
    write_phantoms(folder / "lgg", patients=3, slices=3, size=64)
    torch.save(official_state_dict(UNeXt(), "UNeXt-pytorch"), folder / "model.pth")
    unet = UNet(channels=(4, 8, 16, 32, 64))
    torch.save(official_state_dict(unet, "brain-segmentation-pytorch"), folder / "unet.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(registry, "_MODELS", dict(registry._MODELS))  # names of a page are not those of the tests
        patch.setenv("BRAINSEG_LGG", str(folder / "lgg"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        stub(patch, folder / "hub", accepted=None)
        yield


def run_commands(example: Example) -> None:
    """Runs what a block of `brainseg` commands says, in this process."""
    for line in example.parsed.replace("\\\n", " ").splitlines():
        name, *arguments = shlex.split(line, comments=True)
        assert name == "brainseg"
        with pytest.MonkeyPatch.context() as patch:
            call(patch, *arguments)


pages = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["*.md"],
    excludes=["CHANGELOG.md", "recipes.md"],
    fixtures=["page_folder"],
)
recipes = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("bash", run_commands)],
    patterns=["recipes.md"],
    fixtures=["page_folder"],
)
pytest_collect_file = (pages + recipes).pytest()
