"""Builds the site of the documentation: the pages of the repository as they are, and a reference of the code.

The pages are laid out as in the repository, so that links between them hold here and there.
"""

import argparse
import json
import logging
import shutil
from importlib import import_module
from pathlib import Path

import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ASSETS = (".md", ".png", ".jpg", ".svg", ".json", ".csv", ".cff")

# Pages that have a place; others follow by their titles.
SECTIONS = {
    "First steps": ["README.md", "docs/quickstart.md", "docs/recipes.md"],
    "Data and training": ["docs/your_data.md", "docs/training.md", "docs/cross_validate.md", "docs/predict.md"],
    "Networks": ["docs/models/which.md", "docs/models/*.md", "docs/your_network.md", "src/**/README.md"],
    "Losses, metrics, transforms": ["docs/losses.md", "docs/metrics/*.md", "docs/transforms.md"],
    "Results": ["docs/results.md", "docs/recipe.md", "docs/speed.md", "docs/**/*.md", "benchmarks/**/*.md"],
    "Changes": ["docs/upgrading.md", "CHANGELOG.md"],
}
MODULES = json.loads((ROOT / "tests" / "public_names.json").read_text())


def stage(folder: Path) -> None:
    """Copies the pages, and what they show or link to, and writes a page of reference for each public module."""
    shutil.rmtree(folder, ignore_errors=True)
    named = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CITATION.cff")]
    named += (ROOT / "src" / "brainseg" / "weights").glob("*/*/README.md")
    for path in (*named, *(ROOT / "docs").rglob("*"), *(ROOT / "benchmarks").rglob("*")):
        if path.suffix in ASSETS and not path.name.endswith(".in.md"):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copy(HERE / "site.css", folder / "site.css")
    (folder / "reference").mkdir()
    for module, names in MODULES.items():
        title = (import_module(module).__doc__ or "").strip().splitlines()[0]
        blocks = "\n\n".join(f"::: {module}.{name}" for name in names)
        (folder / "reference" / f"{module}.md").write_text(f"# {module}\n\n{title}\n\n{blocks}\n")


def navigation(folder: Path) -> list[dict[str, list[str]]]:
    """Every page once, in the first section that names it."""
    seen: set[str] = set()
    sections = []
    for title, patterns in SECTIONS.items():
        pages = []
        for pattern in patterns:
            found = (path.relative_to(folder).as_posix() for path in sorted(folder.glob(pattern)))
            pages += [page for page in found if page not in seen and not seen.add(page)]
        sections.append({title: pages})
    sections.insert(-1, {"Reference": [f"reference/{module}.md" for module in MODULES]})
    return sections


def main() -> None:
    """Stages the pages and builds them; a warning or a dead link is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "site", help="folder of the built site")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    site = parser.parse_args().site.absolute()
    folder = site.with_name(f"{site.name}-pages")
    stage(folder)
    config = yaml.safe_load((HERE / "mkdocs.yml").read_text())
    config |= {"docs_dir": str(folder), "site_dir": str(site), "nav": navigation(folder)}
    options = config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]
    options["paths"] = [str(ROOT / "src")]
    options["options"]["extensions"] = [str(HERE / "docstrings.py")]
    path = folder.with_suffix(".yml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        build(load_config(str(path), strict=True))
    except Abort as error:
        raise SystemExit(f"the site has warnings or dead links: {error}") from error


if __name__ == "__main__":
    main()
