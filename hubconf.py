"""Every registered network for `torch.hub.load(<this repository>, "unext", weights="lgg")`."""

import sys
from functools import partial
from pathlib import Path

dependencies = ["einops", "numpy", "safetensors", "timm", "torch"]

# A checkout is not installed, and layers are imported when they are first used.
sys.path.insert(0, str(Path(__file__).parent / "src"))

from brainseg.models import create_model, list_models  # noqa: E402


class _Entry(partial):  # type: ignore[type-arg]
    """A function whose help, `torch.hub.help`, is that of `create_model`."""

    __doc__ = create_model.__doc__


globals().update({name: _Entry(create_model, name) for name in list_models()})
