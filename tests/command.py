"""The command, called in this process."""

import sys

import pytest

from brainseg import cli


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """`brainseg` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["brainseg", *map(str, arguments)])
    cli.main()
