"""What is evaluated: a run or weights, the slices that they are scored on, and where the tables go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brainseg._whole import check_folder
from brainseg.data import SliceDataset, VolumeDataset
from brainseg.inference import Predictor
from brainseg.models import ModelSpec
from brainseg.models.files import CROSS_VALIDATION
from brainseg.training.config import DataConfig, ObjectsConfig, read_config
from brainseg.training.datasets import Parts, open_part, patients_of, read_parts
from brainseg.training.targets import are_chosen, are_values

FILES = ("patients.csv", "slices.csv", "institutions.csv", "summary.json", "cases.png", "report.html")
ALL = "all"


@dataclass(frozen=True)
class Subject:
    """A predictor and the slices that it is scored on.

    Attributes:
        name: of the run or the weights.
        part: of the split, or "all".
        predictor: of the best weights.
        dataset: the slices.
        batch_size: in which they come.
        objects: which objects of a mask there are.
        folder: of the tables.
        together: masks are made of all slices of a patient together, as by `postprocess`.
        known_too: patients of whom slices were trained on, where that is not what the part says.
        run: its folder and the score that chose the weights; None for weights alone.
    """

    name: str
    part: str
    predictor: Predictor
    dataset: SliceDataset
    batch_size: int
    objects: ObjectsConfig
    folder: Path
    together: bool
    known_too: int = 0
    run: tuple[Path, str] | None = None


def find_run(
    run: Path,
    *,
    part: str | None,
    split: str | Path | None,
    root: str | Path | None,
    together: bool | None,
    output: Path | None,
) -> Subject:
    """The best weights of a run and slices of its own data, or of a folder of the same layout; as for `evaluate`."""
    part = part or "validation"
    if part == ALL and root is None:
        raise ValueError(
            "all patients of a run's own data are those it was trained on too; choose a part, or another root"
        )
    if output is None and (split is not None or root is not None):
        raise ValueError("another split or root than the run's own needs an output folder of its own (-o)")
    folder = run / "evaluation" / part if output is None else _free(output)
    predictor, config = Predictor.from_pretrained(run), read_config(run / "config.yaml")
    data = config.data if root is None else replace(config.data, root=str(root))
    parts = None if part == ALL else read_parts(split or run / "split.json")
    if parts is not None and not parts.get(part):
        raise ValueError(f"the split of {split or run} has no patients for {part}; choose another part")
    dataset = open_part(data, parts, part)
    return Subject(
        name=run.resolve().name,
        part=part,
        predictor=predictor,
        dataset=dataset,
        batch_size=batch_size_of(data, dataset),
        objects=config.objects,
        folder=folder,
        together=_together(together, dataset, parts, part),
        known_too=_known([run], dataset) if part != "train" else 0,
        run=(run, config.monitor),
    )


def _known(runs: Sequence[Path], dataset: SliceDataset) -> int:
    """How many patients runs were trained on, if the data is their own: elsewhere a name may be another patient's."""
    trained = set[str]()
    for run in runs:
        own = read_config(run / "config.yaml").data.root
        if own is not None and Path(own).resolve() == dataset.root.resolve():
            trained |= patients_of(read_parts(run / "split.json"), "train")
    return len(trained & {*dataset.patients})


def _runs_of(weights: Path) -> list[Path]:
    """Those that weights are of, as far as their folder tells: `best` in a run's, or a cross-validation's."""
    weights = weights.resolve()
    folder = weights.parent if weights.name in ("best", "ensemble") else weights
    if (folder / CROSS_VALIDATION).is_file():
        return sorted(folder.glob("fold_*"))
    return [folder] if (folder / "config.yaml").is_file() else []


def find_weights(
    weights: Path,
    data: DataConfig,
    *,
    part: str | None,
    split: str | Path | None,
    together: bool | None,
    output: Path | None,
) -> Subject:
    """Weights by folder or name and slices of any data; as for `evaluate`."""
    predictor = Predictor.from_pretrained(weights)
    if output is None:
        raise ValueError(f"{weights} is no run, in whose folder the tables could lie; give an output folder (-o)")
    folder, data = _free(output), _as_trained(data, predictor.spec)
    dataset, parts = open_part(data, None, ALL), None
    own = dataset.root / "split.json"
    named = Path(split) if split is not None else own if own.is_file() else None
    if named is None and part not in (None, ALL):
        raise FileNotFoundError(
            f"there is no split whose part {part} could be scored: {own} is not there, and none is named; give a split "
            "(brainseg split draws one), or leave out the part to score all patients"
        )
    if named is not None and part is None:
        raise ValueError(
            f"{named} splits the patients; say which part is scored: train, validation, test, or all of them"
        )
    if named is not None and part not in (None, ALL):
        parts = read_parts(named)
        if not parts.get(part):
            raise ValueError(f"the split {named} has no patients for {part}; choose another part")
        dataset = open_part(data, parts, part)
    return Subject(
        name=weights.resolve().name if weights.exists() else weights.as_posix(),
        part=part or ALL,
        predictor=predictor,
        dataset=dataset,
        batch_size=batch_size_of(data, dataset),
        objects=ObjectsConfig(),
        folder=folder,
        together=_together(together, dataset, parts, part or ALL),
        known_too=_known(_runs_of(weights), dataset),
    )


def _together(wanted: bool | None, dataset: SliceDataset, parts: Parts | None, part: str) -> bool:
    """Whether slices of a patient are taken together: as wanted, else if they are those of a volume.

    Args:
        wanted: True, False, or None for what `predict` does.
        dataset: the slices.
        parts: the split that they are a part of, if any.
        part: its name.

    Raises:
        ValueError: it is wanted where patients are not whole or not known.
    """
    whole = parts is None or all(isinstance(each, str) for each in parts[part])
    if wanted and not whole:
        raise ValueError(
            "a split by slice parts the slices of a patient, which cannot be taken together; leave patients out"
        )
    if wanted and dataset.case == "image":
        raise ValueError(
            "whose the images are is not known, so slices of a patient cannot be taken together; leave patients out, "
            "or say how names hold the patient (data.patient_pattern)"
        )
    return whole and isinstance(dataset, VolumeDataset) if wanted is None else wanted


def _as_trained(data: DataConfig, spec: ModelSpec) -> DataConfig:
    """Volumes are cut, and their sequences chosen, as the weights say."""
    if data.format != "volumes":
        return data
    named = data.sequences or (None if spec.channel_names is None else list(spec.channel_names))
    return replace(data, axis=spec.axis, sequences=named)


def batch_size_of(data: DataConfig, dataset: SliceDataset) -> int:
    """That of the data section where all slices and their pixels have one shape, else 1."""
    alike = len(set(dataset.shapes)) == len(set(dataset.stretches)) == 1
    return data.batch_size if alike else 1


def _free(folder: Path) -> Path:
    """The folder, unless it holds an evaluation, or is a file."""
    check_folder(folder)
    if there := [name for name in FILES if (folder / name).exists()]:
        raise FileExistsError(f"{folder} holds {there[0]} already, which is never overwritten; give another output")
    return folder


def check_classes(expected: Sequence[str], dataset: SliceDataset) -> None:
    """ValueError where one class of the data would be taken for another of the network: other names, or other numbers.

    Names that nobody has chosen say nothing, unless they are the values of label maps in both, and nor does that of a
    single class.
    """
    found = dataset.class_names
    numbers_differ = dataset.task == "multiclass" and len(found) != len(expected)
    both = (found, expected)
    told = all(map(are_chosen, both)) or all(map(are_values, both))
    names_differ = len(found) == len(expected) > 1 and [*found] != [*expected] and told
    if numbers_differ or names_differ:
        raise ValueError(
            f"the classes of the data are {', '.join(found)} and those of the network {', '.join(expected)}; give data "
            "of the same classes in the same order"
        )
