"""A page: one file, what it is given and nothing else, names that are shown and not run."""

import hashlib
import re
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg.data import phantom
from brainseg.report import Page, Pictures, Quantity, check_pages, create_chart, write_page
from brainseg.visualization import brightened
from tests.pages import PageReader

EVIL = """<script>alert(1)</script>"'&</article>"""


def page_of(patients: Sequence[str], **changes: Any) -> Page:
    given: dict[str, Any] = {
        "title": "run: validation",
        "case": "patient",
        "summary": [
            Quantity("mean Dice", 1 / 3, (0.25, 0.5)),
            Quantity("slices", 7),
            Quantity("nothing", float("nan")),
        ],
        "rows": [{"patient": name, "dice": i / 7, "slices": 2} for i, name in enumerate(patients)],
        "sorted_by": "dice",
        "captions": {name: f"Dice {i / 7:.3f}" for i, name in enumerate(patients)},
        "class_names": ["tumour"],
        "truth": True,
    }
    return Page(**{**given, **changes})


def written(page: Page, path: Path, shown: Sequence[str], slices: int = 2, size: int = 32) -> PageReader:
    image = np.random.default_rng(0).random((size, size)).astype(np.float32)
    masks = np.zeros((len(page.class_names), size, size), bool)
    masks[:, 8:16, 8:20] = True
    with Pictures() as pictures:
        for patient in shown:
            for number in range(slices):
                pictures.add(patient, number, image, masks, np.roll(masks, number, 1) if page.truth else None)
        write_page(page, pictures, path)
    return PageReader(path)


def test_strips_come_in_the_order_of_the_rows_with_all_their_slices(tmp_path: Path) -> None:
    reader = written(page_of(["b", "a", "without"]), tmp_path / "report.html", ["a", "b"])
    assert list(reader.strips) == ["b", "a"]
    assert [each["label"] for each in reader.strips["a"]] == ["0", "1"]
    assert [row[0] for row in reader.tables[0][1:]] == [(name, name) for name in ("b", "a", "without")]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_numbers_have_three_digits_and_keep_all_for_sorting(tmp_path: Path) -> None:
    reader = written(page_of(["a", "b"]), tmp_path / "report.html", ["a"])
    assert reader.tables[0][2][1:] == [("0.143", str(1 / 7)), ("2", "2")]
    assert [row[:2] for row in reader.tables[1]] == [
        [("mean Dice", None), ("0.333", str(1 / 3))],
        [("slices", None), ("7", "7")],
        [("nothing", None), ("-", "")],
    ]
    assert "interval 0.250 to 0.500" in reader.text.replace("\xa0", " ")


def test_names_are_shown_whatever_they_hold(tmp_path: Path) -> None:
    changes = {"title": EVIL, "notes": [EVIL], "class_names": [EVIL, "b"], "groups": [{"institution": EVIL}]}
    changes |= {"charts": [create_chart(EVIL, [1], {EVIL: [1.0]})]}
    plain = written(page_of(["p"], **{**changes, "class_names": ["a", "b"]}), tmp_path / "a.html", ["p"])
    reader = written(page_of([EVIL], captions={EVIL: EVIL}, **changes), tmp_path / "b.html", [EVIL])
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in plain.elements]
    assert list(reader.strips) == [EVIL]
    assert reader.tables[0][1][0] == (EVIL, EVIL)
    assert reader.text.count(EVIL) == 10  # twice the title; note, row, strip, caption, class, group, chart, curve


def test_labels_cannot_end_the_element_that_holds_them(tmp_path: Path) -> None:
    with Pictures() as pictures:
        pictures.add("p", "</script><script>alert(1)//<!--", np.ones((8, 8), np.float32), np.ones((1, 8, 8), bool))
        write_page(page_of(["p"], truth=False), pictures, tmp_path / "report.html")
    reader = PageReader(tmp_path / "report.html")
    assert reader.strips["p"][0]["label"] == "</script><script>alert(1)//<!--"


def test_a_pixel_is_as_high_as_it_is_in_the_head(tmp_path: Path) -> None:
    with Pictures() as pictures:
        image = np.zeros((20, 30), np.float32)
        image[2:6, 3:10] = 1
        pictures.add("p", 0, image, np.zeros((1, 20, 30), bool), stretch=2.5)
        write_page(page_of(["p"], truth=False), pictures, tmp_path / "report.html")
    reader = PageReader(tmp_path / "report.html")
    (frame,) = [given["viewbox"] for _, given in reader.elements if given.get("class") == "slice"]
    assert [float(number) for number in (frame or "").split()] == [3, 5, 7, 10]
    assert ("g", {"transform": "scale(1 2.5)"}) in reader.elements


def test_nothing_comes_from_outside_and_only_our_script_runs(tmp_path: Path) -> None:
    reader = written(page_of(["p"]), tmp_path / "report.html", ["p"])
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.split("<body>")[0])
    links = [
        value for _, given in reader.elements for name, value in given.items() if name in ("src", "href", "srcset")
    ]
    assert all(value and value.startswith("#") for value in links)
    policy = next(given["content"] for tag, given in reader.elements if "http-equiv" in given)
    script = text[text.rindex("<script>") + 8 : text.rindex("</script>")]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" + digest + "'"
    )


def test_classes_have_the_colours_of_overlays(tmp_path: Path) -> None:
    written(page_of(["p"]), tmp_path / "one.html", ["p"])
    assert re.search(
        r"\.true \.class-0 { stroke: #00ff00 } \.found \.class-0 { stroke: #ff0000 }",
        (tmp_path / "one.html").read_text(),
    )
    reader = written(page_of(["p"], class_names=["core", "rim"]), tmp_path / "two.html", ["p"])
    assert re.search(
        r"\.true \.class-1 { stroke: #4dffff } \.found .class-1 { stroke: #4dffff }",
        (tmp_path / "two.html").read_text(),
    )
    assert "core" in reader.text


def test_34_patients_of_60_slices_stay_under_20_mb(tmp_path: Path) -> None:
    """Four slices as large and as noisy as the LGG ones, and the rest of the page, are counted so many times."""
    with Pictures() as pictures:
        for seed in range(4):
            image, mask = phantom(seed, size=256, lesion=True)
            masks = mask.numpy() > 0
            pictures.add("p", seed, brightened(image, 1), masks, np.roll(masks, 3, -1))
        write_page(page_of(["p"]), pictures, tmp_path / "report.html")
        slices = sum(each.length for each in pictures.slices["p"])
    rest = (tmp_path / "report.html").stat().st_size - slices
    assert slices > 4 * 3_000
    assert 34 * (60 * slices / 4 + rest) < 20_000_000


def test_a_missing_jinja2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'report.html needs jinja2: pip install "brainseg-torch\[train\]"'):
        check_pages()
