"""Parameters by their distance from the image, as timm's layer-wise decay asks for it."""

from collections.abc import Sequence

from torch import nn

SEQUENCES = (nn.Sequential, nn.ModuleList)


def number_layers(model: nn.Module, boxes: Sequence[str], *, coarse: bool) -> dict[str, int]:
    """Of every parameter the number of its layer, from the image on: 0, 1, ...

    What a network registers, it registers in the order that data meets it. Everything up to the end of an encoder's box
    belongs to that box; all that comes after the last box, decoder and heads, is one layer more.

    Args:
        model: the network.
        boxes: its encoder's modules, shallow to deep, by their names.
        coarse: a layer for each box; else one for each block of it, with what stands before the first. A block is the
            outermost member of a sequence that has parts of its own, such as a residual unit of a stage.
    """
    modules = dict(model.named_modules())
    ends = [max(k for k, name in enumerate(modules) if f"{name}.".startswith(f"{box}.")) for box in boxes]
    layers: dict[str, tuple[int, int]] = {}
    box, blocks, inside = 0, 0, "."
    for k, (name, module) in enumerate(modules.items()):
        if box < len(ends) and k > ends[box]:
            box, blocks = box + 1, 0
        if not name.startswith(inside) and _is_block(module, modules[name.rpartition(".")[0]]):
            blocks, inside = blocks + 1, f"{name}."
        block = 0 if coarse or box == len(ends) else max(blocks - 1, 0)
        layers.update({parameter: (box, block) for parameter, _ in module.named_parameters(name, recurse=False)})
    numbers = {layer: number for number, layer in enumerate(sorted(set(layers.values())))}
    return {parameter: numbers[layer] for parameter, layer in layers.items()}


def _is_block(module: nn.Module, parent: nn.Module) -> bool:
    return isinstance(parent, SEQUENCES) and not isinstance(module, SEQUENCES) and any(True for _ in module.children())
