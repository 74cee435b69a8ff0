"""Reads a page as a browser does: its tables, its strips, and what would run."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class PageReader(HTMLParser):
    """Attributes: `tables`, rows of cells (text, exact value); `strips`, slices by patient; `elements`; `text`."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, str | None]]]] = []
        self.strips: dict[str, list[dict[str, Any]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._cell: dict[str, str | None] | None = None
        self._content = ""
        self._patient = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell, self._content = given, ""
        elif tag == "article":
            self._patient = given["data-patient"] or ""
        elif tag == "script":
            self._content = ""

    def handle_data(self, data: str) -> None:
        self._content += data
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            assert self._cell is not None
            self.tables[-1][-1].append((self._content.strip(), self._cell.get("data-value")))
        elif tag == "script" and self.elements[-1][1].get("type") == "application/json":
            self.strips[self._patient] = json.loads(self._content)
