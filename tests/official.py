"""Our weights under the keys of the official code, for tests that need a checkpoint of it."""

from torch import Tensor

from brainseg.models import MaskDINO, SegmentationModel
from brainseg.models.convert import _SOURCES
from brainseg.models.mask_dino.convert import _RESNETS, _resnet_keys, mask_dino_head_keys


def official_state_dict(model: SegmentationModel, source: str) -> dict[str, Tensor]:
    """As the authors' code would save a network with these weights."""
    find_keys, _ = _SOURCES[source]
    theirs = {ours: theirs for theirs, ours in find_keys({}).items()}
    return {theirs[key]: value for key, value in model.state_dict().items()}


def official_mask_dino(model: MaskDINO) -> dict[str, Tensor]:
    """The same for Mask DINO with a ResNet, shared tensors under all their names."""
    keys = {f"sem_seg_head.{theirs}": f"query_head.{key}" for theirs, key in mask_dino_head_keys(model.config).items()}
    own = model.state_dict()
    backbone = _resnet_keys(_RESNETS[model.config["backbone"]])
    return {theirs: own[ours] for theirs, ours in {**keys, **backbone}.items() if ours}
