"""From an image to its mask with nothing else to remember: size, scale and channels as the weights expect them."""

from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.data import to_unit_range
from brainseg.models import SegmentationModel
from brainseg.transforms import Resize, create_transform


class Predictor:
    """Segments images with a network and the normalization that its weights were trained with.

    Args:
        model: its `normalization` is applied to every image; it is moved to the device and set to eval mode.
        image_size: height and width at which the network sees the images; logits are resized back. None: as they are.
        threshold: probability above which a pixel is foreground.
        device: None for a GPU if there is one.

    Raises:
        ValueError: a threshold outside (0, 1), or a normalization that cannot be built.
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        image_size: tuple[int, int] | None = None,
        threshold: float = 0.5,
        device: str | torch.device | None = None,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be a probability between 0 and 1, got {threshold}")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        self.normalize = None if model.normalization is None else create_transform(model.normalization)
        self.image_size = None if image_size is None else (image_size[0], image_size[1])
        self.threshold = threshold

    @classmethod
    def from_pretrained(cls, folder: str | Path, **arguments: Any) -> Self:
        """A predictor of the weights that `save_pretrained` wrote; arguments as for the class."""
        return cls(SegmentationModel.from_pretrained(folder), **arguments)

    def logits(self, images: Tensor) -> Tensor:
        """Logits of a batch.

        Args:
            images: (B, C, H, W) floating point in [0, 1], channels as stored, on any device.

        Returns:
            (B, K, H, W) on the predictor's device.
        """
        size = (images.shape[-2], images.shape[-1])
        with torch.inference_mode():
            images = images.to(self.device, next(self.model.parameters()).dtype)
            if self.image_size is not None:
                images = Resize(self.image_size)(images)
            logits: Tensor = self.model(images if self.normalize is None else self.normalize(images))
            return logits if self.image_size is None else Resize(size)(logits)

    def __call__(self, image: Tensor | NDArray[Any]) -> Tensor:
        """The mask of one image.

        Args:
            image: array (H, W, C) or (H, W), uint8 or uint16, as image files hold it; or tensor (C, H, W) in [0, 1].

        Returns:
            (K, H, W) bool, on the CPU.

        Raises:
            ValueError: another rank or dtype, or an image that the network does not take.
        """
        tensor = image if isinstance(image, Tensor) else _to_tensor(image)
        if tensor.dim() != 3 or not tensor.is_floating_point():
            raise ValueError(
                f"expected a tensor (C, H, W) in [0, 1] or an array (H, W, C) of uint8, got {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
        return (self.logits(tensor[None])[0].sigmoid() > self.threshold).cpu()


def _to_tensor(image: NDArray[Any]) -> Tensor:
    if image.ndim not in (2, 3) or image.dtype.name not in ("uint8", "uint16"):
        raise ValueError(
            f"an array of {image.dtype} and shape {image.shape} is no image; give (H, W, C) or (H, W) of uint8 or "
            "uint16, or a tensor (C, H, W) in [0, 1]"
        )
    tensor = to_unit_range(image)
    return tensor[None] if tensor.dim() == 2 else tensor.permute(2, 0, 1)
