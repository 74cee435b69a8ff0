"""How the time of a network grows: with pixels, 128 to 1024 a side, and with images, 1 to 16 a batch."""

from brainseg.benchmark import Case, Grid

NETWORKS = ("unext", "unet_small", "resunet")


def cases() -> list[Case]:
    """What `python -m benchmarks growth` measures; the slopes are in the report."""
    pixels = Grid(NETWORKS, sizes=(128, 192, 256, 384, 512, 768, 1024), optimize=True)
    images = Grid(NETWORKS, batches=(2, 4, 8, 16), optimize=True)
    training = Grid(NETWORKS[:1], sizes=(128, 256, 512), batches=(1, 4, 16), modes=("training",))
    return [*pixels.cases(), *images.cases(), *training.cases()]
