"""Tables and the page of evaluations and predictions."""

from brainseg.report.curves import Chart, create_chart
from brainseg.report.page import Page, Quantity, check_pages, write_page
from brainseg.report.pictures import Pictures
from brainseg.report.tables import read_rows, write_rows, write_values

__all__ = [
    "Chart",
    "Page",
    "Pictures",
    "Quantity",
    "check_pages",
    "create_chart",
    "read_rows",
    "write_page",
    "write_rows",
    "write_values",
]
