"""Networks: from an image to logits of its size."""

from brainseg.models.base import SegmentationModel
from brainseg.models.convert import config_from_state_dict, convert_state_dict
from brainseg.models.costs import ModelSummary, StageSummary, summary
from brainseg.models.features import EncoderFeatures
from brainseg.models.loading import load_weights
from brainseg.models.mask_dino import (
    DeformableAttention,
    Denoising,
    HungarianMatcher,
    MaskDINO,
    MaskDINOHead,
    MaskHead,
    PixelDecoder,
    QueryPredictions,
    SetCriterion,
    TransformerDecoder,
)
from brainseg.models.registry import create_model, list_models, register_model
from brainseg.models.resunet import ResUNet
from brainseg.models.shipped import list_weights
from brainseg.models.spec import ModelSpec, Postprocessing
from brainseg.models.unet import UNet
from brainseg.models.unext import UNeXt

__all__ = [
    "DeformableAttention",
    "Denoising",
    "EncoderFeatures",
    "HungarianMatcher",
    "MaskDINO",
    "MaskDINOHead",
    "MaskHead",
    "ModelSpec",
    "ModelSummary",
    "PixelDecoder",
    "Postprocessing",
    "QueryPredictions",
    "ResUNet",
    "SegmentationModel",
    "SetCriterion",
    "StageSummary",
    "TransformerDecoder",
    "UNeXt",
    "UNet",
    "config_from_state_dict",
    "convert_state_dict",
    "create_model",
    "list_models",
    "list_weights",
    "load_weights",
    "register_model",
    "summary",
]
