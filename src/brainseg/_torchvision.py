"""timm, torchmetrics and Lightning import torchvision, whose wheel does not load beside a torch of another build.

Its compiled operators are missing there, and its import dies although nothing of ours needs them.
"""

import importlib

import torch

_definitions: list[torch.library.Library] = []


def make_importable() -> None:
    """Lets `import torchvision` succeed: the two operators that it wants to know of are declared where it cannot.

    They stay without an implementation, so that code which really calls them gets PyTorch's error.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _definitions.append(library)  # the declarations last as long as the object
