"""Names: listed by pattern, built with changes, and the nearest one for a wrong one."""

import pytest

from brainseg.models import UNeXt, create_model, list_models


def test_names_are_listed_by_pattern() -> None:
    assert list_models() == ["unext_tiny", "unext_small", "unext", "unext_large"]
    assert list_models("unext_*") == ["unext_tiny", "unext_small", "unext_large"]
    assert list_models("resnet*") == []


def test_arguments_go_before_those_of_the_name() -> None:
    model = create_model("unext_small", in_channels=1, depths=(2, 3))
    assert isinstance(model, UNeXt)
    assert (model.config["in_channels"], model.config["depths"]) == (1, [2, 3])
    assert model.config["channels"] == [8, 16, 32, 64, 128]


@pytest.mark.parametrize(("name", "closest"), [("unxt", "unext"), ("UNeXt_small", "unext_small"), ("zz", "unext_tiny")])
def test_unknown_names_are_answered_with_the_closest(name: str, closest: str) -> None:
    with pytest.raises(ValueError, match=f"there is no model '{name}'; did you mean .*{closest}"):
        create_model(name)
