"""Tables in pages, from a comment that names one, `<!-- name -->` or `<!-- name: argument -->`, to the next `end`."""

import re
from collections.abc import Callable

BLOCK = re.compile(r"(<!-- (\w+)(?:: (.*?))? -->\n).*?(<!-- end -->)", re.DOTALL)


def with_blocks(page: str, draw: Callable[[str, str | None], str]) -> str:
    """The page with every block drawn anew, of its name and its argument."""
    return BLOCK.sub(lambda block: f"{block[1]}{draw(block[2], block[3])}\n{block[4]}", page)
