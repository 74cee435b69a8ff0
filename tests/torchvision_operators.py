"""Importing this lets timm be imported where torchvision's wheel does not load beside a CPU-only torch.

The wheel's compiled operators are missing there; torchvision only wants to know that two of them exist.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
