"""Tables on the screen lose nothing where it is narrow."""

import pytest
from rich.table import Table

from brainseg.report.screen import print_table


def test_no_cell_is_cut_or_wrapped_on_a_narrow_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    table = Table("patient", "Dice, enhancing core", title="By patient, [of] 16")
    table.add_row("TCGA_CS_4941_19960909", "0.123")
    print_table(table)
    printed = capsys.readouterr().out
    assert "│ TCGA_CS_4941_19960909 │ 0.123" in printed
    assert "Dice, enhancing core" in printed
    assert "[of] 16" in printed
