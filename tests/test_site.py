"""The site of the documentation builds without a warning, and shows every public name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = json.loads((ROOT / "tests" / "public_names.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, ROOT / "docs" / "site" / "build.py", "--site", folder]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_site_has_a_reference_of_every_public_name(site: Path) -> None:
    for module, names in MODULES.items():
        page = (site / "reference" / f"{module}.html").read_text()
        described = set(re.findall(r'<h2 id="([\w.]+)"', page))
        assert {name.rpartition(".")[2] for name in described} >= {*names}, module
    formulas = (site / "reference" / "brainseg.losses.html").read_text()
    assert "<math" in formulas
    assert ".. math::" not in formulas
    assert "&gt;&gt;&gt;" in (site / "reference" / "brainseg.models.html").read_text()


@pytest.mark.slow
def test_the_site_has_every_page_a_search_and_asks_nobody(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {document["location"].partition("#")[0] for document in index["docs"]}
    pages = [path for path in (ROOT / "docs").glob("*.md") if not path.name.endswith(".in.md")]
    assert {f"docs/{path.stem}.html" for path in pages} <= found
    assert "index.html" in found
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(https?:[^"]*)"', path.read_text())
        assert loaded == [], path
