"""Padding as TensorFlow's SAME, for weights that were trained there.

For input side ``n``, kernel ``k``, stride ``s`` and dilation ``d`` the output has ``ceil(n / s)``
places, and ``max((ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)`` zeros are added in all: half of
them, rounded down, on the left and top, the others on the right and below. PyTorch's own padding
is the same on both sides, which looks one pixel further up and left where a stride is even.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SamePaddedConv2d", "pad_as_tensorflow"]


class SamePaddedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME; see the module."""

    def forward(self, input: Tensor) -> Tensor:
        """Pad by the input's size, then convolve."""
        pads: list[int] = []
        for n, k, s, d in zip(
            reversed(input.shape[2:]),
            reversed(self.kernel_size),
            reversed(self.stride),
            reversed(self.dilation),
            strict=True,
        ):
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(
            F.pad(input, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def pad_as_tensorflow(network: nn.Module) -> None:
    """Turn the padded strided convolutions into SAME ones, in place.

    With stride 1 and odd kernels TensorFlow's padding is the stock symmetric one.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.padding != (0, 0):
            module.__class__ = SamePaddedConv2d
