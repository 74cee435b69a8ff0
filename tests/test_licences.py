"""Nothing that the package brings along, or asks for, has a licence that binds its users unawares."""

import re
from importlib import metadata

import pytest

from tests.requirements import EXTRAS, PROJECT, ROOT, required

NVIDIA = "NVIDIA Proprietary"
# Words of what a distribution says of its licence. All but the last ask for the notice and no more; Mozilla's, and that
# of NVIDIA's libraries for GPUs, bind who hands these files on, and our wheel holds none of them.
PERMISSIVE = re.compile(
    r"MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Zlib|CC0|Unlicense|BSL-1\.0|Historical Permission"
    rf"|MPL-2\.0|Mozilla Public License 2\.0|{NVIDIA}"
)
COPYLEFT = re.compile(r"\bA?GPL|\bLGPL|Affero|GNU|\bEUPL|\bSSPL|CC-BY-NC|Business Source")
WEIGHTS = ROOT / "src" / "brainseg" / "weights"


def stated(name: str) -> str:
    """What a distribution says of its licence, in the order in which packaging believes it."""
    about = metadata.metadata(name)
    classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    words = about.get("License-Expression") or "; ".join(line.rpartition(" :: ")[2] for line in classifiers)
    return words or (about.get("License") or "")[:200]


def fault(words: str) -> str | None:
    if COPYLEFT.search(words):
        return "copyleft"
    return None if all(PERMISSIVE.search(part) for part in re.split(r"\bAND\b|\bOR\b|;", words)) else "unknown"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("MIT", None),
        ("Apache-2.0 AND MIT", None),
        ("BSD-3-Clause AND GPL-3.0-or-later", "copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "copyleft"),
        ("MIT AND All rights reserved", "unknown"),
        ("All rights reserved", "unknown"),
        ("", "unknown"),
    ],
)
def test_licences_are_told_apart(words: str, expected: str | None) -> None:
    assert fault(words) == expected


def test_what_is_asked_for_has_a_permissive_licence() -> None:
    names = sorted(
        set().union(*(required(extra) for extra in ("", *EXTRAS) if extra not in ("benchmark", "docs", "dev")))
    )
    assert {"torch", "numpy", "timm", "einops", "safetensors"} <= {*names}
    said = {name: stated(name) for name in names}
    # NVIDIA's own packages, of PyTorch's build for GPUs, say it in more words than one, or nowhere.
    said |= {
        name: NVIDIA for name in names if name.startswith(("nvidia-", "cuda-")) and not PERMISSIVE.search(said[name])
    }
    assert {name: f"{fault(words)}: {words}" for name, words in said.items() if fault(words)} == {}


def test_the_licence_of_the_weights_is_told_wherever_they_are() -> None:
    assert PROJECT["license"] == "MIT AND CC-BY-NC-SA-4.0"
    assert {"LICENSE", "src/brainseg/weights/LICENSE"} <= {*PROJECT["license-files"]}
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert "CC BY-NC-SA 4.0" in (WEIGHTS / "LICENSE").read_text()
    assert "CC BY-NC-SA 4.0" in (ROOT / "README.md").read_text()
    cards = [path.parent / "README.md" for path in WEIGHTS.rglob("model.safetensors")]
    assert cards
    assert all(re.search("cc-by-nc-sa-4.0|CC BY-NC-SA 4.0", card.read_text()) for card in cards)
