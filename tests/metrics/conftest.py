"""Lets the tests import torchmetrics themselves."""

from brainseg._torchvision import make_importable

make_importable()
