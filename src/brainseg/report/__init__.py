"""Tables of evaluations and predictions."""

from brainseg.report.tables import write_rows, write_values

__all__ = ["write_rows", "write_values"]
