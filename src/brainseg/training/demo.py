"""The whole path on synthetic slices, in about a minute."""

import shutil
from pathlib import Path

from rich.console import Console

from brainseg.data import write_phantoms
from brainseg.training import TrainConfig, evaluate, train
from brainseg.training.config import DataConfig

MARK = ".brainseg-demo"


def demo(folder: Path) -> None:
    """Trains UNeXt on phantoms, evaluates it on those held back, and draws the cases.

    Args:
        folder: of phantoms, cache and run; an earlier demo in it is replaced.

    Raises:
        FileExistsError: the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise FileExistsError(f"{folder} holds files that are not the demo's; give another folder by --output")
    for old in ("data", "cache", "run"):
        shutil.rmtree(folder / old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    write_phantoms(folder / "data", patients=12, slices=12)
    data = DataConfig(root=str(folder / "data"), cache_dir=str(folder / "cache"))
    train(TrainConfig(data=data, epochs=10), folder / "run")
    evaluation = evaluate(folder / "run")
    evaluation.show()
    picture = evaluation.folder / "cases.png"
    Console(markup=False).print(
        f"True outlines in green, found ones in red: {picture.resolve()}", soft_wrap=True, highlight=False
    )
