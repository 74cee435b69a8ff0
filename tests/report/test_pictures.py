"""Pictures of a page: small, cut to what is seen, outlines where they belong, memory that does not grow."""

import base64
import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from brainseg.report import Pictures


def disk(side: int, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    return rows**2 + columns**2 < radius**2


def record(image: NDArray[np.float32], prediction: NDArray[np.bool_], target: Any = None) -> dict[str, Any]:
    with Pictures() as pictures:
        pictures.add("p", 3, image, prediction, target)
        (line,) = pictures.records("p")
    return dict(json.loads(line))


def decoded(picture: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(picture))) as file:
        return np.asarray(file)


def test_a_picture_is_cut_to_the_head_and_the_masks() -> None:
    image = np.zeros((60, 80), np.float32)
    image[10:30, 20:50] = 0.8
    image[40:50] = 0.05  # noise
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 25:33, 48:55] = True
    found = record(image, mask)
    assert found["box"] == [20, 10, 35, 23]
    pixels = decoded(found["picture"])
    assert pixels.shape[:2] == (23, 35)
    assert abs(pixels[3:17, 3:27, 0].astype(int) - 204).max() < 8
    assert found["label"] == "3"


def test_colours_are_kept_and_large_pictures_are_reduced() -> None:
    image = np.zeros((3, 600, 300), np.float32)
    image[0] = 1
    found = record(image, np.zeros((1, 600, 300), bool))
    assert found["box"] == [0, 0, 300, 600]
    pixels = decoded(found["picture"])
    assert pixels.shape == (256, 128, 3)
    assert pixels[128, 64, 0] > 240
    assert pixels[128, 64, 2] < 15


def test_an_empty_slice_is_a_pixel() -> None:
    assert record(np.zeros((9, 7), np.float32), np.zeros((2, 9, 7), bool))["box"] == [3, 4, 1, 1]


def test_outlines_are_kept_by_kind_and_class() -> None:
    masks = np.stack([disk(20, 4), np.zeros((20, 20), bool)])
    found = record(np.ones((20, 20), np.float32), masks, masks[::-1])
    (true_first, true_second), (first, second) = found["outlines"]
    assert (true_first, second) == ("", "")
    assert first == true_second != ""


def test_slices_are_counted_without_reading_them() -> None:
    with Pictures() as pictures:
        pictures.add("p", "a", np.ones((20, 20), np.float32), disk(20, 4)[None], disk(20, 6)[None])
        pictures.add("q", "b", np.ones((20, 20), np.float32), disk(20, 4)[None])
        assert [(each.label, each.true, each.found) for each in (*pictures.slices["p"], *pictures.slices["q"])] == [
            ("a", disk(20, 6).sum(), disk(20, 4).sum()),
            ("b", None, disk(20, 4).sum()),
        ]


def test_slices_that_come_mixed_and_are_read_between_stay_whole() -> None:
    image = np.ones((20, 20), np.float32)
    with Pictures() as pictures:
        for label in range(3):
            for patient in ("p", "q"):
                pictures.add(patient, label, image, disk(20, label + 1)[None])
            assert [json.loads(line)["label"] for line in pictures.records("p")] == [str(k) for k in range(label + 1)]


def test_memory_does_not_grow_with_slices() -> None:
    image = np.random.default_rng(0).random((128, 128)).astype(np.float32)
    mask = disk(128, 30)[None]
    with Pictures() as pictures:
        pictures.add("p", -1, image, mask)
        tracemalloc.start()
        for label in range(60):
            pictures.add("p", label, image, mask)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        size = sum(each.length for each in pictures.slices["p"])
    assert size > 400_000
    assert grown < size / 8


@pytest.mark.parametrize("missing", ["PIL", "contourpy"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    with pytest.raises(ImportError, match=r"pictures of a page need .*brainseg-torch\[train\]"):
        Pictures()
