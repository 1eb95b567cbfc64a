"""Networks made ready for use: weight norms folded and, on a CPU, weights laid out once as oneDNN wants them.

PyTorch brings a weight into oneDNN's layout in every call, which takes longer than a short signal's convolution does.
The operator that takes such weights gives signals channels-last; activations and padding keep that, so that nothing is
copied between layers. (`torch.compile` with frozen weights uses it too, after minutes of compiling.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmtok.networks.conv1d import Conv1d, ConvTranspose1d
from mmtok.networks.weight_norm import fold_weight_norm

Module = TypeVar("Module", bound=nn.Module)

_LENGTH = 32768
"""Samples a layout is chosen for; it works at every length."""


def optimize(module: Module) -> Module:
    """A copy for inference only, equal to rounding: faster, without gradients, and deaf to weights loaded later."""
    ready = fold_weight_norm(module).eval().requires_grad_(False)
    for part in ready.modules():
        if not packable(part):
            continue
        if type(part) is Conv1d:
            part.__class__ = PackedConv1d
            part.pack()  # type: ignore[operator]  # mypy sees the class it had
        elif type(part) is ConvTranspose1d and part.kernel_size[0] == 2 * part.stride[0] and part.groups == 1:
            part.__class__ = PackedConvTranspose1d
            part.pack()  # type: ignore[operator]
    return ready


def packable(part: nn.Module) -> bool:
    """Whether a layer's weight can be laid out for oneDNN: in float32 on a CPU."""
    weight = getattr(part, "weight", None)
    if not isinstance(weight, Tensor) or not torch.backends.mkldnn.is_available():
        return False
    return weight.device.type == "cpu" and weight.dtype == torch.float32


class Packed:
    """A weight of a convolution in oneDNN's layout, beside the plain one that is saved."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, dilation: int) -> None:
        self.bias, self.stride, self.dilation = bias, [1, stride], [1, dilation]
        size = [1, weight.shape[1], 1, _LENGTH * stride]
        dense = weight.detach()[:, :, None].contiguous().to_mkldnn()
        reorder: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight  # whose stub lacks the size
        self.weight = reorder(dense, [0, 0], self.stride, self.dilation, 1, size)

    def __deepcopy__(self, memo: dict[int, object]) -> Packed:
        return self  # never written to, and PyTorch cannot copy the layout

    @staticmethod
    def takes(x: Tensor) -> bool:
        """Whether x is what the layout is for; elsewhere the plain weight is used."""
        fits = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
        return fits and not torch.is_autocast_enabled("cpu")

    def __call__(self, x: Tensor, padding: int, biased: bool = True) -> Tensor:
        bias = self.bias if biased else None
        y = torch.ops.mkldnn._convolution_pointwise(
            x[:, :, None], self.weight, bias, [0, padding], self.stride, self.dilation, 1, "none", [], ""
        )
        return y[:, :, 0]


class PackedConv1d(Conv1d):
    """A `Conv1d` whose weight is laid out already."""

    packed: Packed

    def pack(self) -> None:
        self.packed = Packed(self.weight, self.bias, self.stride[0], self.dilation[0])

    def _convolve(self, x: Tensor, padding: int = 0) -> Tensor:
        return self.packed(x, padding) if Packed.takes(x) else super()._convolve(x, padding)


class PackedConvTranspose1d(ConvTranspose1d):
    """A `ConvTranspose1d` as a convolution of 2 frames to `stride` samples: no overlaps to sum, no gaps to fill."""

    packed: Packed

    def pack(self) -> None:
        stride = self.stride[0]
        earlier, own = self.weight[..., stride:], self.weight[..., :stride]
        # (C, C', stride) twice -> (stride * C', C, 2): channels last, a frame's samples then lie as they must.
        weight = torch.stack([earlier, own], -1).permute(2, 1, 0, 3).flatten(0, 1)
        self.packed = Packed(weight, None if self.bias is None else self.bias.repeat(stride), 1, 1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not Packed.takes(x):
            return super().forward(x)
        before, after = self.cuts
        y = self._apart(self.packed(x, 1))
        return y[..., before : y.shape[2] - after]

    def _spread(self, x: Tensor) -> Tensor:
        return self._apart(self.packed(x, 1, biased=False)) if Packed.takes(x) else super()._spread(x)

    def _apart(self, y: Tensor) -> Tensor:
        """The samples of frames (B, stride * C', n), one after another: (B, C', n * stride)."""
        return y.mT.unflatten(2, (self.stride[0], self.out_channels)).flatten(1, 2).mT
