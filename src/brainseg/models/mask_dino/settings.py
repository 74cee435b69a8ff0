"""The settings of Mask DINO behind its backbone, each in one place with its default and its meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_origin

from brainseg.checks import check_between, check_choice, check_count, check_rate
from brainseg.models.mask_dino.criterion import DenoisingMode
from brainseg.models.mask_dino.pixel_decoder import FeatureOrder, check_levels
from brainseg.models.mask_dino.query_selection import InitBox


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What `MaskDINOHead` and `MaskDINO` take by keyword; by default the authors' settings for ResNet-50, three scales.

    Raises:
        ValueError: values out of range, or that exclude each other.
    """

    encoder_features: Sequence[str] = ("res3", "res4", "res5")
    """Names of the features that become levels of the encoder."""
    total_levels: int = 3
    """Number of levels L; those beyond the features are convolved from the coarsest."""
    feature_order: FeatureOrder = "high2low"
    """Order of the levels, "high2low" from coarse to fine, or "low2high"."""
    conv_dim: int = 256
    """Width E of the pixel decoder, a multiple of 32."""
    mask_dim: int = 256
    """Width in which queries and pixels meet."""
    hidden_dim: int = 256
    """Width C of the queries."""
    encoder_layers: int = 6
    """Of the pixel decoder's transformer, as the three that follow."""
    encoder_heads: int = 8
    encoder_ffn: int = 1024
    encoder_drop: float = 0.0
    fpn_norm: bool = True
    """Group norms in the convolutions of the mask head."""
    decoder_layers: int = 9
    """Of the decoder, as the four that follow."""
    decoder_heads: int = 8
    decoder_points: int = 4
    decoder_ffn: int = 2048
    decoder_drop: float = 0.0
    num_queries: int = 300
    """Number of queries Q; an image with fewer tokens has as many as tokens."""
    two_stage: bool = True
    """Queries come from the encoder's tokens; False: they are learned."""
    learn_content: bool = False
    """With two stages, learn the content queries and take the anchors alone from the tokens."""
    init_box: InitBox = "bitmask"
    """With two stages, anchors from the masks of the chosen tokens: "bitmask", "mask2box", or "no"."""
    initial_prediction: bool = True
    """Predict before the first layer too, which `init_box` needs."""
    denoising: DenoisingMode = "seg"
    """Either "seg" with masks, "standard" without, "no"."""
    dn_number: int = 100
    """See `Denoising`, as for the next."""
    dn_noise: float = 0.4
    softmax_classes: bool = False
    """Classes exclude each other, and "no object" is one more."""
    num_points: int = 12544
    """See `SetCriterion`, as for the three that follow."""
    oversample: float = 3.0
    importance: float = 0.75
    things: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name} must be True or False, got {value!r}")
            elif field.type is int:
                self._set(field.name, check_count(field.name, value))
            elif get_origin(field.type) is get_origin(InitBox):
                check_choice(field.name, value, field.type)
        self._set("encoder_features", list(self.encoder_features))
        for name in ("encoder_drop", "decoder_drop"):
            self._set(name, check_rate(name, getattr(self, name)))
        for name, low, high in (("dn_noise", 0, 1), ("importance", 0, 1), ("oversample", 1, 1000)):
            self._set(name, check_between(name, getattr(self, name), low, high))
        check_levels(self.encoder_features, self.total_levels)
        for name, divisor in (
            ("conv_dim", 32),
            ("conv_dim", self.encoder_heads),
            ("hidden_dim", self.decoder_heads),
            ("hidden_dim", 4),
        ):
            if getattr(self, name) % divisor:
                raise ValueError(
                    f"{name} must be a multiple of {divisor} (group norms, heads or sines), got {getattr(self, name)}"
                )
        if not self.two_stage and (self.init_box != "no" or self.learn_content):
            raise ValueError(
                "one-stage queries are learned: two_stage=False needs init_box='no' and learn_content=False, got "
                f"init_box={self.init_box!r} and learn_content={self.learn_content}"
            )
        if self.init_box != "no" and not self.initial_prediction:
            raise ValueError(
                f"init_box={self.init_box!r} takes boxes from initial predictions; set initial_prediction=True"
            )

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """The settings of keyword arguments; TypeError for those that there are not."""
        known = [field.name for field in fields(cls)]
        if unknown := set(arguments) - set(known):
            raise TypeError(f"Mask DINO takes no {', '.join(sorted(unknown))}; it takes {', '.join(known)}")
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return asdict(self)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
