"""TensorFlow's SAME padding against its definition, place by place."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models as zoo

from gazetell.models.encoders import SamePaddedConv2d, _pad_as_tensorflow


def naive_same(x, weight, stride, dilation):
    """SAME by its definition: output i looks at i*stride - before + j*dilation, zero outside."""
    out_channels, _, kh, kw = weight.shape
    _, height, width = x.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    before = []
    for n, k, places in ((height, kh, rows), (width, kw, columns)):
        needed = (places - 1) * stride + (k - 1) * dilation + 1
        before.append(max(needed - n, 0) // 2)
    out = np.zeros((out_channels, rows, columns))
    for i in range(rows):
        for j in range(columns):
            for a in range(kh):
                for b in range(kw):
                    y = i * stride - before[0] + a * dilation
                    z = j * stride - before[1] + b * dilation
                    if 0 <= y < height and 0 <= z < width:
                        out[:, i, j] += weight[:, :, a, b] @ x[:, y, z]
    return out


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_same_padding_is_tensorflows(height, width, kernel, stride, dilation):
    torch.manual_seed(0)
    layer = SamePaddedConv2d(2, 3, kernel, stride=stride, dilation=dilation, bias=False).double()
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    expected = naive_same(x[0].numpy(), layer.weight.detach().numpy(), stride, dilation)
    assert np.allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


def test_an_even_input_is_padded_on_the_right_and_below():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    layer = SamePaddedConv2d(1, 1, 3, stride=2, padding=1, bias=False)
    nn.init.ones_(layer.weight)
    found = layer(x)
    padded = F.pad(x, (0, 1, 0, 1))  # left, right, top, bottom
    assert torch.equal(found, F.conv2d(padded, layer.weight, stride=2))
    assert found[0, 0, 0, 0] == x[0, 0, :3, :3].sum()
    stock = F.conv2d(x, layer.weight, stride=2, padding=1)
    assert stock[0, 0, 0, 0] == x[0, 0, :2, :2].sum()
    assert found.shape == stock.shape


def test_same_padding_touches_the_strided_convolutions_alone():
    network = zoo.mobilenet_v2()
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    _pad_as_tensorflow(network)
    changed = [m for m in network.modules() if isinstance(m, SamePaddedConv2d)]
    assert changed == strided
    assert len(changed) == 5
    # On sides that leave nothing odd (2n + 1 for a kernel of 3) both are the same.
    x, first = torch.randn(1, 3, 65, 65), changed[0]
    assert torch.allclose(first(x), F.conv2d(x, first.weight, stride=2, padding=1), atol=1e-5)
