"""How the time of a network grows: with pixels, 128 to 1024 a side, and with images, 1 to 16 a batch."""

from brainseg.benchmark import Case, Grid

NETWORKS = ("unext", "unet_small", "resunet")


def cases() -> list[Case]:
    """What `python -m benchmarks growth` measures; the slopes are in the report."""
    grids = [
        Grid(NETWORKS, sizes=(128, 192, 256, 384, 512, 768, 1024)),
        Grid(NETWORKS, batches=(2, 4, 8, 16)),  # with the batch of 1 above
        Grid(NETWORKS[:1], sizes=(128, 256, 512), batches=(4,), modes=("training",)),
        Grid(NETWORKS[:1], batches=(1, 2, 8, 16), modes=("training",)),
    ]
    return [case for grid in grids for case in grid.cases()]
