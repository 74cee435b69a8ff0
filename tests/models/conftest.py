"""Goldens as the tests of networks read them: our thinned copies, and the whole ones where they are."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SHARED
from tests.goldens.reference import read


@pytest.fixture(scope="module", params=["thin", "full"])
def read_golden(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    folder = {"thin": Path(__file__).parents[1] / "goldens", "full": SHARED / "goldens"}[request.param]
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return partial(read, folder)
