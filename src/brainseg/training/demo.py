"""The whole path in about a minute: training on synthetic slices, and what ships on a real one."""

import shutil
from pathlib import Path

from rich.console import Console

from brainseg.data import write_phantoms
from brainseg.inference.files import predict
from brainseg.models.shipped import EXAMPLE
from brainseg.training import TrainConfig, evaluate, train
from brainseg.training.config import DataConfig

MARK = ".brainseg-demo"


def demo(folder: Path) -> None:
    """Trains UNeXt on phantoms, evaluates it on those held back, draws the cases; `unext/lgg` outlines a real slice.

    Args:
        folder: of phantoms, cache, run and the real slice; an earlier demo in it is replaced.

    Raises:
        FileExistsError: the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise FileExistsError(f"{folder} holds files that are not the demo's; give another folder by --output")
    for old in ("data", "cache", "run", "real"):
        shutil.rmtree(folder / old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    write_phantoms(folder / "data", patients=12, slices=12)
    data = DataConfig(root=str(folder / "data"), cache_dir=str(folder / "cache"))
    train(TrainConfig(data=data, epochs=10), folder / "run")
    evaluation = evaluate(folder / "run")
    evaluation.show()
    picture = evaluation.folder / "cases.png"
    predict(Path("unext/lgg"), [EXAMPLE], folder / "real")
    overlay = folder / "real" / f"{EXAMPLE.stem}_overlay.png"
    for line in (
        f"True outlines in green, found ones in red: {picture.resolve()}",
        f"A tumour on a real slice, outlined by the weights that ship: {overlay.resolve()}",
    ):
        Console(markup=False).print(line, soft_wrap=True, highlight=False)
