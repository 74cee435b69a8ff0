"""README and docs pages run as tests, each in a folder of its own with synthetic slices in place of the real ones."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from brainseg.data import phantom
from brainseg.models import UNeXt
from tests.official import official_state_dict

PATIENTS = {"train": ["TCGA_DU_0001_20000101", "TCGA_HT_0002_20000101"], "validation": ["TCGA_CS_0003_20000101"]}


def write_phantoms(root: Path, slices: int = 3, size: int = 64) -> None:
    """Patients of phantoms in Kaggle's layout, every second slice with a lesion."""
    for number, patient in enumerate(name for part in PATIENTS.values() for name in part):
        (root / patient).mkdir(parents=True)
        for i in range(1, slices + 1):
            image, mask = phantom(100 * number + i, size=size, lesion=i % 2 == 1)
            for array, suffix in ((image, ""), (mask[0], "_mask")):
                pixels = (array * 255).round().byte().numpy()
                Image.fromarray(np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels).save(
                    root / patient / f"{patient}_{i}{suffix}.tif"
                )
    (root / "split.json").write_text(json.dumps(PATIENTS))


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("page")
    write_phantoms(folder / "lgg")
    torch.save(official_state_dict(UNeXt()), folder / "model.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BRAINSEG_LGG", str(folder / "lgg"))
        yield


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["*.md"], excludes=["CHANGELOG.md"], fixtures=["page_folder"]
).pytest()
