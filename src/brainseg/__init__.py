"""Segmentation of tumours on brain MRI slices in PyTorch."""

__version__ = "0.2.0"
