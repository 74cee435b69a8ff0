"""The published experiments on the LGG slices: each a configuration, a split and an evaluation, left in one folder.

Does not import Lightning, so that the command line can list them without waiting for it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from brainseg._names import no_such
from brainseg.training.config import CONFIGS, TrainConfig, decided, plain, read_config

if TYPE_CHECKING:
    from brainseg.training.evaluation import Evaluation


@dataclass(frozen=True)
class Experiment:
    """A published configuration on one split.

    Attributes:
        setting: batch and rate.
        reported: IoU and Dice of batches, as published.
        config: name of a configuration that ships.
        split_by: slice as published, or patient.
        seed: of the weights and the order, and of a split that is drawn.
    """

    setting: str
    reported: str
    config: str
    split_by: Literal["patient", "slice"]
    seed: int


PUBLISHED = {
    # batch and rate, IoU and Dice reported, configuration
    1: ("batch 8, rate 1e-4", "0.7553 / 0.8546", "course"),
    2: ("batch 8, rate 1e-2", "0.3714 / 0.4879", "course_2"),
    3: ("batch 16, rate 1e-4", "a picture only", "course_3"),
}
EXPERIMENTS = {
    f"course-{number}": Experiment(setting, reported, config, "slice", 41)
    for number, (setting, reported, config) in PUBLISHED.items()
} | {
    f"course-{number}-patients": Experiment(setting, reported, config, "patient", 0)
    for number, (setting, reported, config) in PUBLISHED.items()
}
"""By name; 41 is the seed of the published split."""


def configure(name: str, *, root: str | Path | None = None, split: str | Path | None = None) -> TrainConfig:
    """The run of an experiment.

    Args:
        name: one of `EXPERIMENTS`.
        root: folder of the data; None for that which BRAINSEG_LGG names, else ~/.cache/brainseg/lgg.
        split: JSON file; None for the published draw of the slices, or split.json in the root.

    Raises:
        ValueError: an unknown name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(no_such("experiment", name, EXPERIMENTS))
    experiment = EXPERIMENTS[name]
    config = read_config(CONFIGS / f"{experiment.config}.yaml")
    data = replace(
        config.data,
        root=None if root is None else str(root),
        split=None if split is None else str(split),
        split_by=experiment.split_by,
    )
    # The batch is of each device.
    return decided(replace(config, data=data, seed=experiment.seed, devices=1))


def run_experiment(
    name: str, folder: str | Path, *, root: str | Path | None = None, split: str | Path | None = None
) -> "Evaluation":
    """Trains and evaluates an experiment; started again it goes on where it was.

    Args:
        name: as for `configure`.
        folder: of the run, made if absent.
        root: as for `configure`.
        split: likewise.

    Returns:
        The evaluation of its validation part, in `evaluation/validation` of the folder.

    Raises:
        ValueError: an unknown name, a folder of another run, or as for `train` and `resume`.
        FileNotFoundError, FloatingPointError, KeyboardInterrupt, OSError: likewise.
    """
    from brainseg.training.evaluation import evaluate
    from brainseg.training.fit import train
    from brainseg.training.resuming import PLACES, changes, resume

    config, folder = configure(name, root=root, split=split), Path(folder)
    if (folder / "config.yaml").is_file():
        begun = plain(read_config(folder / "config.yaml"))
        if changed := changes(begun, plain(config), allowed=PLACES):
            raise ValueError(f"{folder} is another run than {name}, in {', '.join(changed)}; give another folder")
        resume(folder, places={"data.root": config.data.root})
    else:
        train(config, folder)
    return evaluate(folder)
