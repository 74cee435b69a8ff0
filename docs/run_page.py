"""Runs a page's Python blocks and writes what they print into the text block that follows.

    python docs/run_page.py docs/quickstart.md

Pictures land beside the page. Blocks of a page share their names, as a reader who types them in would have them.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"(^```text\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)


def run(page: str) -> str:
    printed, namespace = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        for block in PYTHON.findall(page):
            exec(compile(block, "<page>", "exec"), namespace)
    return printed.getvalue()


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    page = path.read_text()
    os.chdir(path.parent)
    printed = run(page)
    path.write_text(OUTPUT.sub(lambda match: match[1] + printed + match[3], page, count=1))
