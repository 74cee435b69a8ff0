"""Goldens: values of the authors' code at sampled places, and what it takes to compare a network of ours with them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainseg.models import SegmentationModel, convert_state_dict, create_model
from tests.goldens.recipe import make_input, make_state_dict

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}
GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
SOURCES = {"UNext": "UNeXt-pytorch", "UNext_S": "UNeXt-pytorch", "UNet": "brain-segmentation-pytorch"}


def read(folder: Path, name: str) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return golden


def build(golden: dict[str, Any], dtype: torch.dtype) -> tuple[SegmentationModel, Tensor]:
    """The network with the golden's weights, and its input."""
    shapes = {key: shape for key, shape, _ in golden["state_dict"]}
    state_dict = make_state_dict(golden["weights"]["salt"], shapes)
    for key, _, total in golden["state_dict"]:
        found = state_dict[key].double().sum().item()
        assert abs(found - total) <= 1e-7 * max(1, abs(total)), key
    if golden["model"] in SOURCES:
        state_dict = convert_state_dict(state_dict, SOURCES[golden["model"]])
    model = create_model(**golden["library"])
    model.load_state_dict(state_dict)
    image = make_input(golden["input"]["seed"], tuple(golden["input"]["shape"]))
    expected = torch.tensor(golden["input"]["values"], dtype=torch.float64)
    torch.testing.assert_close(samples(image, golden["input"]), expected, rtol=1e-6, atol=1e-7)
    return model.to(dtype).train(golden["mode"] == "train"), image.to(dtype)


def samples(tensor: Tensor, golden: dict[str, Any]) -> Tensor:
    assert list(tensor.shape) == golden["shape"]
    return tensor.detach().double().contiguous().flatten()[torch.tensor(golden["indices"])]


def error(tensor: Tensor, golden: dict[str, Any]) -> float:
    """Largest difference to the sampled values, relative to the largest value of the tensor."""
    expected = torch.tensor(golden["values"], dtype=torch.float64)
    scale = max(abs(golden["min"]), abs(golden["max"]))
    return ((samples(tensor, golden) - expected).abs().max() / scale).item()


def output(logits: Tensor, golden: dict[str, Any]) -> Tensor:
    """What the golden holds as output: logits, or the probabilities in which the authors' network ends."""
    return logits.sigmoid() if golden["output"].get("kind") == "probabilities" else logits
