"""The command `brainseg`."""

import sys
from pathlib import Path


def demo(output: Path = Path("demo")) -> None:
    """Runs UNeXt on a synthetic brain slice and writes a picture of what went in and what came out.

    Args:
        output: folder of the picture, made if absent.
    """
    import torch
    from matplotlib.figure import Figure
    from rich.console import Console

    from brainseg.data import phantom
    from brainseg.models import create_model
    from brainseg.visualization import draw_outlines

    torch.manual_seed(0)
    model = create_model("unext").eval()
    image, mask = phantom(7, lesion=True)
    with torch.inference_mode():
        probability = model(image[None])[0].sigmoid()

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    titles = ("pre-contrast", "FLAIR", "post-contrast", "untrained UNeXt")
    for axes, channel, title in zip(figure.subplots(1, 4), (*image, probability[0]), titles, strict=True):
        draw_outlines(axes, channel, mask)
        axes.set_title(title, fontsize=9)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "phantom.png"
    figure.savefig(path, dpi=150)
    parameters = sum(p.numel() for p in model.parameters())
    Console().print(
        f"UNeXt ({parameters:,} parameters, fresh weights) on a slice of {tuple(image.shape)}: logits "
        f"{tuple(probability.shape)}. The picture, with the lesion outlined in green: {path.resolve()}",
        soft_wrap=True,
    )


def main() -> None:
    """Entry point of the command."""
    try:
        from jsonargparse import auto_cli

        auto_cli({"demo": demo}, prog="brainseg", description="Segmentation of tumours on brain MRI slices.")
    except ImportError as error:
        raise SystemExit(f'brainseg needs {error.name}: pip install "brainseg-torch[train]"') from error
    except OSError as error:
        sys.stderr.write(f"error: {error}; give another path\n")
        raise SystemExit(2) from None
