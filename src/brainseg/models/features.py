"""The encoder of a network by itself, as timm's `features_only` gives it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from brainseg._torchvision import make_importable
from brainseg.models.base import SegmentationModel

if TYPE_CHECKING:
    from timm.models import FeatureInfo


class EncoderFeatures(nn.Module):
    """The encoder of a network, without its decoder and head: `create_model(name, features_only=True)`.

    Args:
        model: the network, which is taken apart: what it registered after the last box of its encoder is gone.
        out_indices: which features, as for `SegmentationModel.forward_intermediates`.

    Attributes:
        feature_info: timm's `FeatureInfo` of the chosen features: `channels()`, `reduction()`, `module_name()`.

    Shape:
        images (B, C, H, W) floating point -> list of (B, channels, ceil(H/reduction), ceil(W/reduction)), shallow to
        deep.

    Raises:
        ValueError: indices of features that there are not; images that do not fit.
    """

    def __init__(self, model: SegmentationModel, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        chosen = model.choose_features(out_indices)
        children = [name for name, _ in model.named_children()]
        last = max(children.index(info["module"].partition(".")[0]) for info in model.feature_info)
        for name in children[last + 1 :]:
            delattr(model, name)
        self.model = model
        self.out_indices = chosen

    @property
    def feature_info(self) -> "FeatureInfo":
        """Described as timm's backbones describe theirs."""
        make_importable()
        from timm.models import FeatureInfo

        described: list[dict[str, Any]] = [
            {**info, "module": f"model.{info['module']}"} for info in self.model.feature_info
        ]
        return FeatureInfo(described, tuple(self.out_indices))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As `SegmentationModel.set_grad_checkpointing`."""
        self.model.grad_checkpointing = enable

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(images, indices=self.out_indices, intermediates_only=True)
