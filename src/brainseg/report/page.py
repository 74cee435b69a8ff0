"""The page of an evaluation or of predictions: one file that opens offline."""

import hashlib
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import brainseg
from brainseg._whole import written_whole
from brainseg.report.curves import HEIGHT, WIDTH, Chart
from brainseg.report.pictures import Pictures, Slice
from brainseg.visualization.outlines import outline_colors

HERE = Path(__file__).parent


class Quantity(NamedTuple):
    """A line of the summary.

    Attributes:
        name: what it is.
        value: NaN where there is none.
        interval: its 95 % interval; None if it has none.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """What stands on a page beside its pictures.

    Attributes:
        title: above all.
        case: what a row is of, and a strip of slices: "patient", or "image".
        summary: the first is the headline.
        rows: of the table, of equal columns, "patient" first; strips come in their order.
        sorted_by: column that the rows rise by; None if there is none.
        captions: of the strips, by patient.
        class_names: of the masks.
        truth: whether it is known what is true.
        groups: rows of another table.
        charts: curves of the training.
        notes: what a reader must know, a line each.
    """

    title: str
    case: str
    summary: Sequence[Quantity]
    rows: Sequence[Mapping[str, Any]]
    sorted_by: str | None
    captions: Mapping[str, str]
    class_names: Sequence[str]
    truth: bool
    groups: Sequence[Mapping[str, Any]] = ()
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = field(default=())


class Strip(NamedTuple):
    """The slices of a patient, as the template needs them.

    Attributes:
        patient: name.
        caption: beside it.
        frame: x, y, width and height of what pictures show together, in widths of a pixel.
        stretch: height of a pixel over its width.
        start: place of the slice with most foreground.
        slices: how many.
        first: label of the slice at `start`.
        profiles: foreground over slices, true if known and found, as data of SVG paths, 1 high.
        records: pictures and outlines, read when they are written.
    """

    patient: str
    caption: str
    frame: tuple[float, float, float, float]
    stretch: float
    start: int
    slices: int
    first: str
    profiles: dict[str, str]
    records: Iterator[str]


def write_page(page: Page, pictures: Pictures, path: Path) -> None:
    """Writes a page in one move, one picture at a time in memory.

    It holds all that it shows and asks for nothing; names are shown as they are, whatever they hold.

    Raises:
        ImportError: jinja2 is not installed.
        OSError: a full or read-only disk.
    """
    from matplotlib.colors import to_hex

    environment = _environment()
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    order = dict.fromkeys(str(row["patient"]) for row in page.rows)
    shown = [patient for patient in order if patient in pictures.slices]
    pieces = environment.get_template("page.html").generate(
        page=page,
        colors=[tuple(map(to_hex, pair)) for pair in outline_colors(len(page.class_names))],
        places={patient: number for number, patient in enumerate(shown)},
        strips=(_strip(patient, page.captions[patient], pictures) for patient in shown),
        chart_size=(WIDTH, HEIGHT),
        version=brainseg.__version__,
        script=script,
        digest=digest,
        style=(HERE / "page.css").read_text(encoding="utf-8"),
    )
    with written_whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def check_pages() -> None:
    """ImportError unless pages can be written, before hours of work for one."""
    _environment()


def _environment() -> Any:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise ImportError('report.html needs jinja2: pip install "brainseg-torch[train]"') from error
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["exact"] = _exact
    return environment


def _number(value: Any) -> str:
    """As it is read: three digits of what is no whole number."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _exact(value: Any) -> str:
    """As it is sorted: all digits; empty where there is none."""
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def _strip(patient: str, caption: str, pictures: Pictures) -> Strip:
    slices = pictures.slices[patient]
    boxes = [each.box for each in slices]
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    stretch = slices[0].stretch
    start = max(range(len(slices)), key=lambda i: (slices[i].true or 0) + slices[i].found)
    return Strip(
        patient,
        caption,
        (left, stretch * top, right - left, stretch * (bottom - top)),
        stretch,
        start,
        len(slices),
        slices[start].label,
        _profiles(slices),
        pictures.records(patient),
    )


def _profiles(slices: Sequence[Slice]) -> dict[str, str]:
    kinds: dict[str, list[int | None]] = {
        "true": [each.true for each in slices],
        "found": [each.found for each in slices],
    }
    most = max(area or 0 for areas in kinds.values() for area in areas) or 1
    return {
        kind: "M0 1" + "".join(f"V{1 - area / most:.3g}h1" for area in areas if area is not None) + "V1z"
        for kind, areas in kinds.items()
        if None not in areas
    }
