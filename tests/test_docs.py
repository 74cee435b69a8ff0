"""Pages show what the code counts now."""

from pathlib import Path

import pytest
from docs.model_tables import PAGES, with_tables

PATHS = sorted(PAGES.glob("*.md"))


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_the_tables_of_the_models_are_those_of_the_code(path: Path) -> None:
    page = path.read_text()
    assert with_tables(page) == page, "run python docs/model_tables.py"
