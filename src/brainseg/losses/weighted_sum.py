"""A sum of named losses."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from brainseg._names import no_such
from brainseg.losses.rules import to_computing_dtype


class WeightedSum(nn.Module):
    """Sum of named losses, each times its weight.

    Each loss looks at the target's values for itself; with check_target=False in all but the first only one waits for
    the device.

    Args:
        losses: name to loss, called with logits and target (and `valid`, if given); the names are those of `parts`.
        weights: name to number; the losses that are not named have 1.

    Shape:
        logits and target: as the losses take them; half types are computed in float32. Returns what they return, which
        must have one shape.

    Raises:
        ValueError: no losses, weights without a loss, or losses of different shapes.

    Example:
        >>> import torch
        >>> from brainseg.losses import DiceLoss, FocalLoss
        >>> loss = WeightedSum({"dice": DiceLoss(), "focal": FocalLoss()}, weights={"focal": 20.0})
        >>> loss.parts(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        (tensor(3.7857), {'dice': tensor(0.3200), 'focal': tensor(0.1733)})
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("a sum of no losses; give at least one")
        if not isinstance(losses, Mapping):
            raise TypeError(f'losses need names, {{"dice": DiceLoss(), ...}}, got {type(losses).__name__}')
        given = {} if weights is None else weights
        for name in given:
            if name not in losses:
                raise ValueError(no_such("loss", name, losses, most=1))
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: float(given.get(name, 1.0)) for name in losses}

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return self.parts(logits, target, valid=valid)[0]

    def parts(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and its terms by name before their weights, detached; all in one pass."""
        # Once for all losses: each for itself would round its gradient to the half type before they are summed.
        logits = to_computing_dtype(logits)
        arguments = {} if valid is None else {"valid": valid}
        terms: dict[str, Tensor] = {name: loss(logits, target, **arguments) for name, loss in self.losses.items()}
        shapes = {name: tuple(term.shape) for name, term in terms.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"the losses have the shapes {shapes}, expected one; give them the same reduction")
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum(0)
        return total, {name: term.detach() for name, term in terms.items()}

    def extra_repr(self) -> str:
        return f"weights={self.weights}"
