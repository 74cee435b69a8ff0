"""A page in headless Chromium, as somebody uses it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg.report import Page, Pictures, Quantity, create_chart, write_page

EVIL = "<script>document.title = 'run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as session:
        yield session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients; of the second slice of each the mask lies elsewhere, and most is found on the last."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    scores = {"p_10": 0.25, EVIL: 0.5, "p_9": float("nan")}
    with Pictures() as pictures:
        for patient in scores:
            for number in range(5):
                masks = np.zeros((2, 32, 32), bool)
                masks[:, 4 : 10 + number, 4 + number : 20] = True
                pictures.add(patient, number + 1, image, masks, masks)
        page = Page(
            title="run: validation",
            case="patient",
            summary=[Quantity("mean Dice", 0.375, (0.25, 0.5))],
            rows=[{"patient": name, "dice": dice} for name, dice in scores.items()],
            sorted_by="dice",
            captions=dict.fromkeys(scores, "caption"),
            class_names=["core", "rim"],
            truth=True,
            charts=[create_chart("Loss", [1, 2, 3], {"train_loss": [3.0, 2.0, 1.0]}, kept=3)],
        )
        write_page(page, pictures, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_a_page_sorts_its_table_moves_its_sliders_and_asks_for_nothing(
    browser: Any, page_file: Path, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())

    assert page.title() == "run: validation"  # the patient's name has not run
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"

    def order() -> list[str]:
        rows = page.locator("#cases tbody tr th").all_inner_texts()
        strips = page.locator(".strip h3").all_text_contents()  # rendered or not
        assert rows == strips
        return list(rows)

    dice, patient = page.get_by_role("button", name="dice"), page.get_by_role("button", name="patient")
    assert order() == ["p_10", EVIL, "p_9"]
    dice.click()
    assert order() == [EVIL, "p_10", "p_9"]  # what has no score stays last
    assert dice.locator("..").get_attribute("aria-sort") == "descending"
    patient.focus()
    page.keyboard.press("Enter")
    assert order() == [EVIL, "p_9", "p_10"]
    assert dice.locator("..").get_attribute("aria-sort") is None
    dice.click()
    assert order() == ["p_10", EVIL, "p_9"]

    strip = page.locator(".strip").first
    strip.scroll_into_view_if_needed()
    outline = strip.locator(".found .class-1")
    slider, shown = strip.get_by_role("slider"), strip.locator("output")
    page.wait_for_function("document.querySelector('.strip image').hasAttribute('href')")
    seen = [(shown.inner_text(), outline.get_attribute("d"))]
    slider.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight" if seen[0][0] == "1" else "ArrowLeft")
        seen.append((shown.inner_text(), outline.get_attribute("d")))
    assert len(set(seen)) == 3
    assert all(path for _, path in seen)
    slider.fill("0")
    assert shown.inner_text() == "1"
    loaded = "(image) => new Promise((done) => { const copy = new Image(); copy.onload = () => done(copy.naturalWidth);"
    loaded += " copy.onerror = () => done(0); copy.src = image.getAttribute('href'); })"
    assert strip.locator("image").evaluate(loaded) == 32

    assert outline.is_visible()
    page.get_by_label("rim").uncheck()
    assert not outline.is_visible()
    page.get_by_label("rim").check()
    page.get_by_label("predicted").uncheck()
    assert not outline.is_visible()
    assert strip.locator(".true .class-1").is_visible()

    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    page.close()
