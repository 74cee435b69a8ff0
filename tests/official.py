"""Our weights under the keys of the official code, for tests that need a checkpoint of it."""

from torch import Tensor

from brainseg.models import UNeXt
from brainseg.models.convert import _unext_keys


def official_state_dict(model: UNeXt) -> dict[str, Tensor]:
    """As the authors' code would save a `UNext` with these weights."""
    theirs = {ours: theirs for theirs, ours in _unext_keys().items()}
    return {theirs[key]: value for key, value in model.state_dict().items()}
