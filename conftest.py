"""README and docs pages run as tests, each in a folder of its own with synthetic slices in place of the real ones."""

from collections.abc import Iterator

import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from brainseg.data import write_phantoms
from brainseg.models import UNet, UNeXt
from tests.official import official_state_dict


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("page")
    write_phantoms(folder / "lgg", patients=3, slices=3, size=64)
    torch.save(official_state_dict(UNeXt(), "UNeXt-pytorch"), folder / "model.pth")
    unet = UNet(channels=(4, 8, 16, 32, 64))
    torch.save(official_state_dict(unet, "brain-segmentation-pytorch"), folder / "unet.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BRAINSEG_LGG", str(folder / "lgg"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["*.md"], excludes=["CHANGELOG.md"], fixtures=["page_folder"]
).pytest()
