"""Configuration, files and copies."""

import copy
import pickle
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from brainseg.models import SegmentationModel
from brainseg.testing.rules import Build, expect, expect_close, expect_equal, images, seeded, trained


def check_config(build: Build) -> None:
    """`type(model)(**model.config)` builds the same network, and no tensor stands twice in its state dict."""
    model = seeded(build, in_channels=2, num_classes=3)
    again = type(model)(**model.config)
    expect(again.config == model.config, f"the config {model.config} builds a network of config {again.config}")
    shapes, wanted = ({k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (again, model))
    expect(shapes == wanted, "the config builds a network of other weights: does it hold all arguments?")
    places = [value.data_ptr() for value in model.state_dict().values() if value.numel()]
    expect(len(places) == len({*places}), "a tensor stands twice in the state dict")


def check_files(build: Build) -> None:
    """A saved network is read back whole, by its class and by `SegmentationModel`."""
    model = trained(build, in_channels=2, num_classes=3)
    model.normalization = {"name": "Rescale", "arguments": {"low": 0.0, "high": 1.0}}
    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "best")
        for network in (type(model), SegmentationModel):
            again = network.from_pretrained(Path(folder) / "best").eval()
            expect(type(again) is type(model), f"a {type(again).__name__} is read back")
            expect(again.config == model.config and again.spec == model.spec, "another config or spec is read back")
            expect_equal(again.state_dict(), model.state_dict(), "weights that are read back")


def check_adaptation(build: Build) -> None:
    """Weights are read into other channels, by their sums, and other classes, by a fresh head."""
    model = trained(build, num_classes=2).double()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        adapted = SegmentationModel.from_pretrained(folder, in_channels=1, num_classes=4).double().eval()
    gray = images(1, 1).double()
    with torch.no_grad():
        expect(adapted(gray).shape[1] == 4, "another num_classes is not read")
        features = adapted.forward_intermediates(gray, intermediates_only=True)
        expected = model.forward_intermediates(gray.expand(-1, 3, -1, -1), intermediates_only=True)
    for a, b in zip(features, expected, strict=True):
        expect_close(a, b, "features of a gray image; `stems` must name every convolution that reads it", 1e-6)


def check_copies(build: Build) -> None:
    """Copies compute the same, and pickles of a network that is defined in a module."""
    model = trained(build)
    with torch.no_grad():
        expected = model(images())
        expect(torch.equal(copy.deepcopy(model)(images()), expected), "a copy computes something else")
        if getattr(sys.modules.get(type(model).__module__), type(model).__qualname__, None) is not type(model):
            return  # of a function or a page: pickle does not find it again
        expect(torch.equal(pickle.loads(pickle.dumps(model))(images()), expected), "a pickle computes something else")
