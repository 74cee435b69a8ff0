"""Our weights under the keys of the official code, for tests that need a checkpoint of it."""

from torch import Tensor

from brainseg.models import SegmentationModel
from brainseg.models.convert import _SOURCES


def official_state_dict(model: SegmentationModel, source: str) -> dict[str, Tensor]:
    """As the authors' code would save a network with these weights."""
    find_keys, _ = _SOURCES[source]
    theirs = {ours: theirs for theirs, ours in find_keys({}).items()}
    return {theirs[key]: value for key, value in model.state_dict().items()}
