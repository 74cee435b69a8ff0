"""The mask branch: m = q_c (x) M(T(C_b) + F(C_e))."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.models import MaskHead


@pytest.mark.parametrize("norm", [True, False])
def test_mask_head_is_equation_1_of_the_paper(norm: bool) -> None:
    head = MaskHead(8, 64, 32, 16, norm=norm).double()
    queries = torch.randn(2, 5, 32).double()
    c_b, c_e = torch.randn(2, 8, 12, 16).double(), torch.randn(2, 64, 6, 8).double()

    def conv(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
        y = F.conv2d(x, layers[0].weight, layers[0].bias, padding=layers[0].weight.shape[-1] // 2)
        return F.group_norm(y, 32, layers[1].weight, layers[1].bias) if norm else y

    t, f = conv(c_b, head.fusion.adapter), F.interpolate(c_e, (12, 16), mode="bilinear")
    m = F.conv2d(F.relu(conv(t + f, head.fusion.layer)), head.mask_features.weight, head.mask_features.bias)
    first, second, last = head.mask_embed.layers
    q = last(F.relu(second(F.relu(first(queries)))))
    expected = torch.stack([(q[:, i, :, None, None] * m).sum(dim=1) for i in range(5)], dim=1)
    torch.testing.assert_close(head(queries, c_b, c_e), expected)


def test_mask_head_starts_from_uniform_kernels_and_no_biases() -> None:
    torch.manual_seed(0)
    head = MaskHead(64, 128, 32, 16)
    for conv in (head.fusion.adapter[0], head.fusion.layer[0], head.mask_features):
        bound = (3 / conv.weight[0].numel()) ** 0.5
        assert 0.95 * bound < conv.weight.abs().max() <= bound
    assert not head.mask_features.bias.any()
    assert head.fusion.adapter[0].bias is None


def test_mask_head_keeps_float32_under_autocast() -> None:
    head = MaskHead(8, 64, 32, 16)
    c_b, c_e = torch.randn(1, 8, 8, 8), torch.randn(1, 64, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert head.pixel_embedding(c_b.bfloat16(), c_e.bfloat16()).dtype == torch.float32
