"""Mask DINO, one box of the paper's figure a file."""

from brainseg.models.mask_dino.criterion import SetCriterion
from brainseg.models.mask_dino.deformable import DeformableAttention, deformable_attention
from brainseg.models.mask_dino.denoising import Denoising
from brainseg.models.mask_dino.head import MaskDINOHead
from brainseg.models.mask_dino.instances import Instances
from brainseg.models.mask_dino.mask_head import MaskHead
from brainseg.models.mask_dino.matcher import HungarianMatcher
from brainseg.models.mask_dino.model import MaskDINO
from brainseg.models.mask_dino.pixel_decoder import PixelDecoder
from brainseg.models.mask_dino.postprocessing import (
    Segment,
    instance_inference,
    panoptic_inference,
    semantic_inference,
    semantic_logits,
)
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.query_selection import QuerySelection
from brainseg.models.mask_dino.settings import HeadSettings
from brainseg.models.mask_dino.targets import Target, boxes_of_masks, targets_from_masks
from brainseg.models.mask_dino.transformer_decoder import TransformerDecoder

__all__ = [
    "DeformableAttention",
    "Denoising",
    "HeadSettings",
    "HungarianMatcher",
    "Instances",
    "MaskDINO",
    "MaskDINOHead",
    "MaskHead",
    "PixelDecoder",
    "QueryPredictions",
    "QuerySelection",
    "Segment",
    "SetCriterion",
    "Target",
    "TransformerDecoder",
    "boxes_of_masks",
    "deformable_attention",
    "instance_inference",
    "panoptic_inference",
    "semantic_inference",
    "semantic_logits",
    "targets_from_masks",
]
