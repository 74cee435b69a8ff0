"""Formulas and examples of docstrings in the form that the site shows."""

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

FORMULA = re.compile(r"^( *)\.\. math::[ \n]*((?:.|\n)+?)(?=\n *\n|\Z)", re.MULTILINE)
EXAMPLE = re.compile(r"^( *)>>> (?:.+\n?)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_example, FORMULA.sub(_formula, obj.docstring.value))


def _formula(found: re.Match[str]) -> str:
    """MathML, which browsers show without a script."""
    return f'{found[1]}<div class="formula">{convert(" ".join(found[2].split()), display="block")}</div>\n'


def _example(found: re.Match[str]) -> str:
    return f"{found[1]}```pycon\n{found[0].rstrip()}\n{found[1]}```\n"
