"""Losses: logits and target to a tensor that falls as the masks become right."""

from brainseg.losses.bce import BCELoss, bce_loss
from brainseg.losses.bce_dice import BCEDiceLoss, bce_dice_loss
from brainseg.losses.boundary import BoundaryLoss, boundary_loss, signed_distance
from brainseg.losses.cldice import SoftClDiceLoss, soft_cldice_loss
from brainseg.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from brainseg.losses.deep_supervision import DeepSupervisionLoss
from brainseg.losses.dice import DiceLoss, dice_loss
from brainseg.losses.focal import FocalLoss, focal_loss
from brainseg.losses.generalized_dice import GeneralizedDiceLoss, generalized_dice_loss
from brainseg.losses.jaccard import JaccardLoss, jaccard_loss
from brainseg.losses.lovasz import LovaszLoss, lovasz_loss
from brainseg.losses.mcc import MCCLoss, mcc_loss
from brainseg.losses.presets import CEDiceLoss, DiceFocalLoss
from brainseg.losses.tversky import FocalTverskyLoss, TverskyLoss, focal_tversky_loss, tversky_loss
from brainseg.losses.weighted_sum import WeightedSum

__all__ = [
    "BCEDiceLoss",
    "BCELoss",
    "BoundaryLoss",
    "CEDiceLoss",
    "CrossEntropyLoss",
    "DeepSupervisionLoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "JaccardLoss",
    "LovaszLoss",
    "MCCLoss",
    "SoftClDiceLoss",
    "TverskyLoss",
    "WeightedSum",
    "bce_dice_loss",
    "bce_loss",
    "boundary_loss",
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "jaccard_loss",
    "lovasz_loss",
    "mcc_loss",
    "signed_distance",
    "soft_cldice_loss",
    "tversky_loss",
]
