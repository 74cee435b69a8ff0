"""Transforms are built from their descriptions; what is none is answered with what would be one."""

import pytest

from brainseg.transforms import Compose, RandomFlip, create_transform


def test_arguments_that_are_left_out_have_their_defaults() -> None:
    assert create_transform({"name": "RandomFlip", "arguments": {}}).config == RandomFlip().config


def test_the_parts_of_a_chain_are_built_too() -> None:
    chain = create_transform(
        {"name": "Compose", "arguments": {"transforms": [{"name": "RandomTranspose", "arguments": {"p": 1}}]}}
    )
    assert isinstance(chain, Compose)
    assert repr(chain.transforms[0]) == "RandomTranspose(p=1.0)"


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match="there is no transform 'Normalise'; did you mean Normalize"):
        create_transform({"name": "Normalise", "arguments": {}})


def test_a_name_like_no_other_is_answered_with_how_many_there_are() -> None:
    with pytest.raises(ValueError, match=r"'xyz'; there are \d+ others"):
        create_transform({"name": "xyz", "arguments": {}})


def test_arguments_that_do_not_exist_are_named() -> None:
    with pytest.raises(ValueError, match=r"RandomTranspose cannot be built with .*'probability'.*it is .*\(p: float"):
        create_transform({"name": "RandomTranspose", "arguments": {"probability": 1}})


def test_arguments_that_are_wrong_or_missing_are_named() -> None:
    with pytest.raises(ValueError, match=r"RandomTranspose cannot be built with .*p must be a probability"):
        create_transform({"name": "RandomTranspose", "arguments": {"p": 2}})
    with pytest.raises(ValueError, match=r"Normalize cannot be built with .* missing .*'std'"):
        create_transform({"name": "Normalize", "arguments": {"mean": [0.5]}})


@pytest.mark.parametrize(
    "config", [None, "RandomFlip", {"name": "RandomFlip"}, {"name": 1, "arguments": {}}, {"name": "a", "arguments": []}]
)
def test_what_describes_no_transform_is_refused(config: object) -> None:
    with pytest.raises(ValueError, match=r'a transform is described by {"name": \.\.\., "arguments": {\.\.\.}}, got'):
        create_transform(config)
