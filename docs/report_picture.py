"""Draws docs/report.jpg: the page of an evaluation, as Chromium shows it.

    python docs/report_picture.py

Needs the LGG slices, the extra `dev` and Chromium (on Debian: apt-get install chromium). The weights that ship have
been trained on these patients, so that the scores say nothing; the page is what is shown.
"""

import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from brainseg.data import write_split
from brainseg.models import create_model
from brainseg.training import TrainConfig, evaluate, write_config

PATIENTS = ["TCGA_DU_7299_19910417", "TCGA_FG_5964_20010511", "TCGA_HT_7608_19940304", "TCGA_DU_7008_19830723"]


def main() -> None:
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as folder, sync_playwright() as session:
        run = Path(folder) / "first"
        create_model("unext", weights="lgg").save_pretrained(run / "best")
        write_config(TrainConfig(), run / "config.yaml")
        write_split({"train": [], "validation": PATIENTS, "test": []}, run / "split.json")
        page_file = evaluate(run).folder / "report.html"
        browser = session.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1260, "height": 980})
        page.goto(page_file.as_uri())
        page.wait_for_function("document.querySelectorAll('image[href]').length > 3")
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").save(Path(__file__).with_name("report.jpg"), quality=82, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
