"""What all tests share: where the data and goldens lie, how hypothesis draws, and two threads as in CI."""

import os
from pathlib import Path

import hypothesis
import pytest

SHARED = Path(__file__).parents[2] / "shared"

hypothesis.settings.register_profile("default", deadline=None, max_examples=10, derandomize=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="session")
def lgg() -> Path:
    """The folder of the LGG slices in Kaggle's layout, with split.json."""
    folder = Path(os.environ.get("BRAINSEG_LGG", Path.home() / ".cache/brainseg/lgg"))
    if not (folder / "split.json").is_file():
        pytest.skip(f"the LGG slices are not in {folder}; set BRAINSEG_LGG")
    return folder
