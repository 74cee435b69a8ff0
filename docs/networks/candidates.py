"""Networks of like operations, 0.71 to 0.77 GMACs at 256x256, for `find_network` by `module:callable`.

`unext` has 0.56; the widths are powers of two or multiples of four, as one would choose them, and no peer has less.
"""

from torch import nn

from brainseg._torchvision import make_importable
from brainseg.benchmark import find_network
from brainseg.models import create_model


def unet() -> nn.Module:
    return create_model("unet", channels=(8, 16, 32, 64, 128))


def resunet() -> nn.Module:
    return create_model("resunet", channels=(8, 16, 32, 64))


def monai_unet() -> nn.Module:
    """Channels 16, 32, 64, 128, 256, two residual units, instance norms."""
    return find_network("monai/UNet")(3, 256)


def monai_unet_plain() -> nn.Module:
    """Without residual units, whose last one gives logits of instance-normalised maps."""
    make_importable()
    from monai.networks.nets import UNet

    channels = (28, 52, 104, 208, 416)
    network: nn.Module = UNet(spatial_dims=2, in_channels=3, out_channels=1, channels=channels, strides=(2, 2, 2, 2))
    return network


def monai_basic_unet() -> nn.Module:
    make_importable()
    from monai.networks.nets import BasicUNet

    network: nn.Module = BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, features=(12, 12, 24, 48, 96, 12))
    return network


def smp_unet() -> nn.Module:
    """From random weights, as all others."""
    make_importable()
    import segmentation_models_pytorch as smp

    network: nn.Module = smp.Unet(
        "mobilenet_v2", encoder_weights=None, decoder_channels=(64, 32, 16, 8, 4), in_channels=3, classes=1
    )
    return network
