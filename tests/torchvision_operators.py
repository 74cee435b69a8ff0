"""Importing this lets timm be imported where torchvision's wheel does not load beside a CPU-only torch."""

from brainseg._torchvision import make_importable

make_importable()
