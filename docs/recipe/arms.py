"""Networks of arms of the recipe that are no registered ones, for `--model docs.recipe.arms:NAME`."""

from brainseg.models import SegmentationModel, create_model


def unext_deep() -> SegmentationModel:
    """Deep supervision: in training the logits of all five boxes of the decoder."""
    return create_model("unext", deep_supervision=True)
