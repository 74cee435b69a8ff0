"""Each extra alone brings what its part of the package imports, and what lacks says which extra brings it.

Everything that is installed, and does not come with the extra, cannot be found, as in a clean environment, where
`make release-check` does the same.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.requirements import EXTRAS, canonical, required

pytestmark = pytest.mark.slow

IMAGE = "import torch; image = torch.rand(3, 64, 64)\n"
MODEL = "from brainseg.models import create_model; model = create_model('unext_tiny').eval()\n"
# The extra, "" for none, and what it is enough for.
ENOUGH = {
    "": f"""
{IMAGE}{MODEL}
from brainseg import losses, transforms
from brainseg.inference import Predictor, optimize
from brainseg.models import summary
create_model('mask_dino_small')
create_model('unet', encoder='resnet18')
Predictor(create_model('unext', weights='lgg'))(image)
summary(model, (64, 64))
optimize(model)
""",
    "data": """
import nibabel
from brainseg.data import LGGSegmentation, VolumeDataset, write_phantoms
write_phantoms('lgg', patients=2, slices=2, size=64)
assert LGGSegmentation('lgg', cache_dir='cache')[0]['image'].shape == (3, 64, 64)
""",
    "metrics": """
import torch
from brainseg.losses import boundary_loss
from brainseg.metrics import BoundaryIoU, ClDiceScore, DiceScore, HausdorffDistance, LesionDetection
mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
boundary_loss(torch.rand(1, 1, 8, 8), mask)
for metric in (DiceScore(), HausdorffDistance(), BoundaryIoU(), ClDiceScore(), LesionDetection()):
    metric.update(mask, mask)
    assert not metric.compute().isnan()
""",
    "train": """
from brainseg import cli, report, visualization
from brainseg.data import write_phantoms
from brainseg.training import TrainConfig, evaluate, train
from brainseg.training.config import DataConfig, ModelConfig
write_phantoms('lgg', patients=4, slices=2, size=32)
data = DataConfig(root='lgg', cache_dir='cache', batch_size=2)
train(TrainConfig(ModelConfig('unext_tiny'), data, epochs=1), 'run')
evaluate('run')
""",
    "export": f"""
{IMAGE}{MODEL}
from brainseg.inference import Predictor, export
export(model, 'model.onnx')
Predictor(model, backend='onnxruntime')(image)
""",
}
SLICES = "from brainseg.data import *; write_phantoms('lgg', patients=2, slices=2, size=32)\n"
LOGGER = "from pathlib import Path; from brainseg.training.watching import create_logger\n"
# The extra that is there, what is not enough for it, and the extra that would be.
LACKS = [
    ("", "import brainseg.metrics", "metrics"),
    ("", "from brainseg.losses import BoundaryLoss; BoundaryLoss()(*torch.ones(2, 1, 1, 8, 8))", "metrics"),
    ("", f"{SLICES}LGGSegmentation('lgg')", "data"),
    ("", "from brainseg.training import train", "train"),
    ("", "sys.argv = ['brainseg', 'models']; from brainseg.cli import main; main()", "train"),
    ("", f"{MODEL}from brainseg.inference import export; export(model, 'a.onnx')", "export"),
    ("train", f"{LOGGER}create_logger('tensorboard', Path('a'))", "tensorboard"),
    ("train", f"{LOGGER}create_logger('wandb', Path('a'))", "wandb"),
]
# Hides top-level modules, of the rest of the interpreter's command line the first, and runs the second.
HIDING = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else PathFinder.find_spec(name, path, target)

hidden = set(sys.argv[1].split(","))
sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
import torch
exec(sys.argv[2])
"""


def run(extra: str, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = required(extra)
    hidden = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if module != "brainseg" and not any(canonical(name) in kept for name in distributions)
    ]
    command = [sys.executable, "-c", HIDING, ",".join(hidden), program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_every_extra_with_a_part_of_its_own_is_here() -> None:
    assert {*EXTRAS} == {*ENOUGH} - {""} | {extra for *_, extra in LACKS} | {"benchmark", "docs", "dev", "all"}


@pytest.mark.parametrize("extra", ENOUGH)
def test_an_extra_is_enough(extra: str, tmp_path: Path) -> None:
    result = run(extra, ENOUGH[extra], tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize(("extra", "program", "named"), LACKS)
def test_what_lacks_is_named_with_its_extra(extra: str, program: str, named: str, tmp_path: Path) -> None:
    result = run(extra, program, tmp_path)
    assert f'pip install "brainseg-torch[{named}]"' in result.stderr.splitlines()[-1]
