"""How fast networks are, ours and any other: side by side, on any device."""

from brainseg.benchmark.grid import Grid
from brainseg.benchmark.growth import Growth, find_growth
from brainseg.benchmark.harness import Candidate, Case, NotAvailableError, Row, Run, measure
from brainseg.benchmark.machine import environment
from brainseg.benchmark.network_run import create_run
from brainseg.benchmark.networks import find_network
from brainseg.benchmark.report import create_report, failures, markdown, write_report
from brainseg.benchmark.setting import Setting

__all__ = [
    "Candidate",
    "Case",
    "Grid",
    "Growth",
    "NotAvailableError",
    "Row",
    "Run",
    "Setting",
    "create_report",
    "create_run",
    "environment",
    "failures",
    "find_growth",
    "find_network",
    "markdown",
    "measure",
    "write_report",
]
