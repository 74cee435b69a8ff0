"""Puts the averaged weights of a run of train.py into the package: half precision, with their spec and checksums.

    python docs/recipe/ship.py runs/all unext/lgg

Parameters are stored in float16, the statistics of batch norms in float32; `score.py --half` shows what that changes
out of fold. The model card beside them, README.md, is written by hand.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from docs.recipe.train import read_averaged

from brainseg._whole import written_whole
from brainseg.models import ModelSpec, Postprocessing, create_model, files
from brainseg.models.shipped import CHECKSUMS, SHIPPED
from brainseg.transforms import HeadZScore

SPEC = ModelSpec(
    class_names=("tumour",),
    image_size=(256, 256),
    crop=(192, 192),  # accepted out of fold, docs/recipe.md, as is what follows for all slices of a patient together
    normalization=HeadZScore().config,
    channel_names=("t1", "flair", "t1ce"),  # pre-contrast, FLAIR, post-contrast, by the names that BraTS gave to files
    shown_channel=1,
    postprocessing=Postprocessing(smooth=True, components="likeliest"),
)


def ship(run: Path, name: str) -> None:
    network, _ = name.split("/")
    model = read_averaged(run)
    if model.config != create_model(network).config:
        raise ValueError(f"{run} has not trained {network} but a {type(model).__name__} of {model.config}")
    model.spec = SPEC
    stored = model.state_dict() | {key: parameter.half() for key, parameter in model.named_parameters()}
    files.write(SHIPPED / name, model.config_text(), stored)

    path = SHIPPED / CHECKSUMS
    checksums = json.loads(path.read_text()) if path.exists() else {}
    checksums[name] = {
        file: hashlib.sha256((SHIPPED / name / file).read_bytes()).hexdigest() for file in (files.CONFIG, files.WEIGHTS)
    }
    with written_whole(path) as partial:
        partial.write_text(json.dumps(checksums, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of train.py")
    parser.add_argument("name", help="network/tag")
    arguments = parser.parse_args()
    ship(arguments.run, arguments.name)


if __name__ == "__main__":
    main()
