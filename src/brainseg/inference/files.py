"""Masks and overlays of image files."""

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Self

from rich.progress import track

from brainseg._whole import check_folder
from brainseg.data import find_images
from brainseg.data.files import stem_of, what_lies_in
from brainseg.data.patients import natural_order
from brainseg.inference import Ensemble, Measures, Predictor
from brainseg.inference.backends import Backend
from brainseg.inference.components import check_spacing, voxel_volume
from brainseg.inference.jobs import Job, Manner, Outcome, do
from brainseg.inference.page import prediction_page
from brainseg.inference.processes import check_devices, do_in_processes
from brainseg.inference.results import RESULT, kinds, probabilities_path, result_path
from brainseg.inference.settings import NOTE, check_settings, settings_of, write_settings
from brainseg.inference.volumes import Scan, find_scans, holds_volumes, volume_path
from brainseg.models import Postprocessing
from brainseg.report import Pictures, check_pages, read_rows, write_page, write_rows


class PredictionError(ValueError):
    """Some images could not be predicted; the masks of all others are written.

    Attributes:
        reasons: what is wrong with each, with its path.
        done: number of the others.
    """

    def __init__(self, reasons: Sequence[str], done: int) -> None:
        super().__init__("; ".join(reasons))
        self.reasons, self.done = list(reasons), done


TABLE, PAGE = "volumes.csv", "report.html"


def predict(
    model: Path | Sequence[Path],
    images: Sequence[Path],
    output: Path,
    *,
    threshold: float | None = None,
    channel: int | None = None,
    tta: bool = False,
    windows: bool = False,
    backend: Backend = "torch",
    patients: bool = False,
    postprocessing: Postprocessing | None = None,
    spacing: Sequence[float] | None = None,
    probabilities: bool = False,
    skip_existing: bool = False,
    sequences: Sequence[str] | None = None,
    devices: int = 1,
) -> int:
    """Writes `<name>_mask.png` (0 and 255) and `<name>_overlay.png` for every image, `volumes.csv` and `report.html`.

    With several classes that may overlap there is a mask for each, `<name>_mask_0.png` and so on; with classes that
    exclude each other one label map, `<name>_labels.png`, of the spec's `label_values`. Images in folders keep the path
    that they have there; masks and overlays, by the names that they get here, are left out. The table has a row of
    `Measures` for each class of each image, or of each patient; the page shows it with all slices.

    NIfTI volumes become NIfTI volumes (`predict_scan`): files, folders of a case, or folders of such.

    Args:
        model: folder of a run, or of weights that `save_pretrained` wrote, or a name of `list_weights()`; of several
            the mean of their logits is taken.
        images: image files, and folders that are searched to any depth, by the rule of `brainseg.data.find_images`;
            volumes, and folders that hold some (`find_scans`).
        output: folder of the results, made if absent.
        threshold: probability above which a pixel is foreground; None for that of the weights.
        channel: of the image, that overlays show; None for what the spec of the weights names.
        tta: as for `Predictor`.
        windows: as for `Predictor`.
        backend: as for `Predictor`.
        patients: the images of one folder are the slices of a patient, in the order of the numbers in their names, and
            `postprocessing` is done to them together.
        postprocessing: None for that of the weights.
        spacing: of slices, rows and columns of images in mm, for millilitres and millimetres; volumes have their own.
        probabilities: write `<name>_probabilities.npy` too, (K, H, W) float32, before any postprocessing.
        skip_existing: leave images alone whose overlays are there, and volumes whose masks are there, if the table has
            their rows and they were made with the same weights and options, which `settings.json` tells.
        sequences: of volumes, the network's channels in their order; None for those that the weights name.
        devices: processes that share the images, or patients: a GPU each where there are some, else the processor. A
            program of one's own that asks for several begins in `if __name__ == "__main__":`.

    Returns:
        the number of images and volumes.

    Raises:
        FileNotFoundError: no such model, file or folder, or a folder without images.
        PredictionError: files that are no images, may not be read, or have channels or sides that the network does not
            take, and patients one of whose slices is such a file; raised after all others are predicted.
        ValueError: two images whose results would have one name, two folders of one name for `patients`, images beside
            volumes in a folder, arguments that do not fit each other or what is predicted, or results to go on from
            that were made with others.
        FileExistsError: a file is in the place of the output.
        ChildProcessError: one of several processes was killed.
        OSError: results cannot be written.
    """
    check_there(images)
    check_folder(output)
    volumes = [path for path in images if holds_volumes(path)]
    images = [path for path in images if path not in volumes]
    _check_volumes_alone(volumes)
    if sequences is not None and not volumes:
        raise ValueError("sequences are volumes, and none was given; channels of images come as the files have them")
    if spacing is not None and volumes and not images:
        raise ValueError("spacing of volumes is that of their headers; leave it out, and repair headers that are wrong")
    if postprocessing is not None and not patients and images:
        raise ValueError("postprocessing is done to the slices of a patient together; predict with patients=True")
    if spacing is not None:
        voxel_volume(spacing)  # refused before anything is done
    check_pages()
    places = check_devices(devices, backend)
    arguments = {"threshold": threshold, "tta": tta, "windows": windows, "backend": backend}
    predictor = _open(model, **arguments)
    spec = predictor.spec
    spec.check_channels(sequences)
    named = spec.channel_names if sequences is None else sequences
    scans = _scans(find_places(images), by_folder=patients)
    patients_of_volumes = [scan for path in volumes for scan in find_scans(path, named, predictor.in_channels)]
    _check_names([*scans, *(scan.name for scan in patients_of_volumes)])
    manner = Manner(
        output=output,
        spec=spec,
        channel=spec.shown_channel if channel is None else channel,
        of_images=postprocessing if patients else Postprocessing(),
        of_volumes=postprocessing,
        spacing=None if spacing is None else tuple(spacing),
        probabilities=probabilities,
    )
    if scans:
        check_spacing(manner.of_images or spec.postprocessing, spacing)
    work: list[tuple[str, Scan | Mapping[Path, Path]]] = [*scans.items()]
    work += [(scan.name, scan) for scan in patients_of_volumes]
    outcomes: dict[int, Outcome] = {}
    settings = settings_of(
        predictor,
        patients=patients,
        postprocessing=asdict(postprocessing or spec.postprocessing),
        spacing=manner.spacing,
        sequences=sequences,
    )
    with _Table(output / TABLE, settings, keep=skip_existing) as table, Pictures() as pictures:
        jobs = [
            Job(
                name,
                files,
                done=skip_existing and table.holds(name) and all(map(Path.is_file, _results(files, manner))),
            )
            for name, files in work
        ]
        if len(places) == 1 or len(jobs) < 2:
            ended: Iterator[tuple[int, Outcome]] = (
                (number, do(job, predictor, manner, pictures)) for number, job in enumerate(jobs)
            )
        else:
            places = places[: len(jobs)]
            ended = do_in_processes(jobs, places, partial(_open, model, **arguments), manner, pictures)
        total = len(jobs)
        for number, outcome in track(ended, "Predicting", total=total, transient=True, disable=total < 2):
            outcomes[number] = outcome._replace(rows=[])
            if outcome.rows:
                table.replace(jobs[number].name, outcome.rows)
        table.write()
        reasons, hidden = (
            [text for _, outcome in sorted(outcomes.items()) for text in getattr(outcome, part)]
            for part in ("reasons", "hidden")
        )
        done = sum(outcome.predicted for outcome in outcomes.values())
        if measures := table.measures():
            case = "patient" if patients or patients_of_volumes else "image"
            names = [spec.class_names[k] for k in spec.foreground]
            notes = [*(f"Not predicted: {reason}" for reason in reasons), *(f"Not shown: {text}" for text in hidden)]
            page = prediction_page(f"{output.resolve().name}: predictions", measures, names, case=case, notes=notes)
            write_page(page, pictures, output / PAGE)
    if reasons:
        raise PredictionError(reasons, done)
    return done


def check_there(images: Sequence[Path]) -> None:
    """FileNotFoundError that names all that are not there, before the first is predicted."""
    if missing := [str(path) for path in images if not path.exists()]:
        raise FileNotFoundError(f"there is no file or folder {', '.join(missing)}; nothing was predicted")


def _check_volumes_alone(folders: Sequence[Path]) -> None:
    """ValueError for images in a folder that is read as one of volumes, which would be left out without a word."""
    for folder in folders:
        if folder.is_dir() and (paths := _images_in(folder)):
            raise ValueError(
                f"{folder} holds volumes, and images such as {paths[0].relative_to(folder)}; predict the folders of "
                "volumes and of images apart, or move one of them away"
            )


class _Table:
    """The rows of volumes.csv, written anew as patients are done; a patient's row is written last of all.

    Written once a second at most, since each time takes as long as all rows before, and when the block is left. With
    what they were made stands beside them; rows of an earlier call, whose masks are about to change, lose that.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, keep: bool) -> None:
        self.path, self.settings = path, settings
        self.rows: dict[str, list[Measures]] = {}
        if keep and path.is_file():
            for row in read_rows(path):
                self.rows.setdefault(row["patient"], []).append(_measures(row, path))
        if self.rows:
            check_settings(path.parent, settings)
        else:
            (path.parent / NOTE).unlink(missing_ok=True)
        self.patients = sorted(self.rows, key=natural_order)
        self._written = True
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def holds(self, patient: str) -> bool:
        return patient in self.rows

    def replace(self, patient: str, rows: Sequence[Measures]) -> None:
        if patient not in self.rows:
            insort(self.patients, patient, key=natural_order)
        self.rows[patient] = list(rows)
        self._written = False
        if monotonic() >= self._next:
            self.write()
            self._next = monotonic() + 1

    def write(self) -> None:
        if not self._written:
            write_settings(self.path.parent, self.settings)
            write_rows([row._asdict() for row in self.measures()], self.path)
            self._written = True

    def measures(self) -> list[Measures]:
        """All rows, in the order of the table."""
        return [row for patient in self.patients for row in self.rows[patient]]


def _measures(row: Mapping[str, str], path: Path) -> Measures:
    try:
        return Measures(**{name: kind(row[name]) for name, kind in Measures.__annotations__.items()})
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of this version: {error}; predict without --skip-existing, or to another folder"
        ) from error


def _check_names(names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two of the inputs are called {twice[0]} and would share their results; predict them apart")


def _open(model: Path | Sequence[Path], **arguments: Any) -> Predictor:
    if isinstance(model, str | Path):
        return Predictor.from_pretrained(model, **arguments)
    if len(model) == 1:
        return Predictor.from_pretrained(model[0], **arguments)
    return Ensemble.from_folders(model, **arguments)


def _results(files: Scan | Mapping[Path, Path], manner: Manner) -> list[Path]:
    """What has to be there of a job that is done: what is written last, and what not every call writes."""
    if isinstance(files, Scan):
        places = [manner.output / files.name]
        last = [volume_path(manner.output, files, kind) for kind in kinds(manner.spec)]
    else:
        places = [manner.output / target for target in files]
        last = [result_path(place, "overlay") for place in places]
    return last + [probabilities_path(place) for place in places if manner.probabilities]


def _scans(found: Mapping[Path, Path], *, by_folder: bool) -> dict[str, dict[Path, Path]]:
    """What is predicted together, by its name in the table: each image by itself, or the slices of each folder.

    Raises:
        ValueError: two folders of one name, whose slices would be one patient's.
    """
    scans: dict[str, dict[Path, Path]] = {}
    folders: dict[str, Path] = {}
    for target, path in sorted(found.items(), key=lambda item: natural_order(item[0].as_posix())):
        name, folder = target.as_posix(), path.absolute().parent
        if by_folder:
            name = target.parent.as_posix() if target.parent.name else folder.name
            if (other := folders.setdefault(name, folder)) != folder:
                raise ValueError(
                    f"{other} and {folder} would be one patient, {name}; give a folder above, or predict them apart"
                )
        scans.setdefault(name, {})[target] = path
    return scans


def find_places(images: Sequence[Path]) -> dict[Path, Path]:
    """Where the results of each image go, without suffix, below the output folder."""
    found: dict[Path, Path] = {}
    for given in images:
        if given.is_dir():
            paths = _images_in(given)
            if not paths:
                raise FileNotFoundError(
                    f"{given} holds no images: {what_lies_in(given)} (files called *_mask and *_overlay are left out)"
                )
        else:
            paths = [given]
        for path in paths:
            target = (path.relative_to(given) if given.is_dir() else Path(path.name)).with_name(stem_of(path))
            if target in found and found[target] != path:
                raise ValueError(f"{path} and {found[target]} would share the name {target}; predict them apart")
            found[target] = path
    return found


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder but for results of an earlier call."""
    return [path for path in find_images(folder) if not RESULT.search(stem_of(path))]
