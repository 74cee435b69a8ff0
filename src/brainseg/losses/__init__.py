"""Losses: logits and target to a tensor that falls as the masks become right."""

from brainseg.losses.bce_dice import BCEDiceLoss, bce_dice_loss
from brainseg.losses.deep_supervision import DeepSupervisionLoss
from brainseg.losses.dice import DiceLoss, dice_loss

__all__ = ["BCEDiceLoss", "DeepSupervisionLoss", "DiceLoss", "bce_dice_loss", "dice_loss"]
