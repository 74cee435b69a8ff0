"""The eight symmetries of the square: each is what torch's own operations give, and two in a row are one."""

from itertools import product

import torch
from torch import Tensor

from brainseg.transforms.symmetry import Symmetry

EIGHT = list(product([False, True], repeat=3))


def symmetries(choices: list[tuple[bool, ...]]) -> Symmetry:
    return Symmetry(*torch.tensor(choices).unbind(1))


def reference(image: Tensor, transposed: bool, rows: bool, columns: bool) -> Tensor:
    image = image.mT if transposed else image
    return image.flip([dim for dim, reverse in ((-2, rows), (-1, columns)) if reverse])


def test_each_is_a_transposition_and_then_flips() -> None:
    images, masks = torch.rand(8, 2, 5, 5), torch.randint(0, 9, (8, 5, 5))
    moved, moved_masks = symmetries(EIGHT).apply(images, masks)
    assert moved_masks is not None
    for sample, choice in enumerate(EIGHT):
        assert torch.equal(moved[sample], reference(images[sample], *choice))
        assert torch.equal(moved_masks[sample], reference(masks[sample], *choice))


def test_flips_of_images_that_are_not_square() -> None:
    images = torch.rand(4, 3, 4, 7)
    moved, _ = symmetries(EIGHT[:4]).apply(images, None)
    for sample, choice in enumerate(EIGHT[:4]):
        assert torch.equal(moved[sample], reference(images[sample], *choice))


def test_two_in_a_row_are_one_for_all_pairs() -> None:
    pairs = list(product(EIGHT, EIGHT))
    first, second = symmetries([a for a, _ in pairs]), symmetries([b for _, b in pairs])
    images = torch.rand(64, 1, 4, 4)
    one_by_one, _ = second.apply(first.apply(images, None)[0], None)
    assert torch.equal(first.then(second).apply(images, None)[0], one_by_one)


def test_images_in_another_memory_layout_are_moved_alike() -> None:
    images = torch.rand(8, 3, 6, 6)
    strided = images.to(memory_format=torch.channels_last)
    assert torch.equal(symmetries(EIGHT).apply(strided, None)[0], symmetries(EIGHT).apply(images, None)[0])
