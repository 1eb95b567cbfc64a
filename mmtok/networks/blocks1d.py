"""Parts of codecs for sound: activations, residual blocks, and the layers that see far, each also in steps."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.networks.conv1d import Conv1d, Norm, PadMode, normed
from mmtok.networks.streamed import Chain, Streamed, Sum

Activation = Literal["elu", "snake"]


class ELU(Streamed):
    """x where positive, exp(x) - 1 elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x)


class Snake(Streamed):
    """x + sin(a x)^2 / a with a learned a for each channel: periodic, as sound is (Liu et al., arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.alpha + 1e-9).reciprocal()
        wave = x * self.alpha
        if torch.is_grad_enabled():
            return torch.addcmul(x, wave.sin().square(), scale)
        wave.sin_()  # in one piece of memory: a CPU spends more on new ones than on the sine
        return wave.mul_(wave).mul_(scale).add_(x)


class Pass(Streamed):
    """What comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def activation(kind: Activation, channels: int) -> Streamed:
    """A new activation of a kind."""
    return Snake(channels) if kind == "snake" else ELU()


def residual(
    channels: int,
    hidden: int,
    *,
    kernel: int,
    dilation: int,
    act: Activation,
    shortcut: bool,
    causal: bool,
    pad_mode: PadMode,
    norm: Norm,
) -> Sum:
    """A dilated convolution to `hidden` channels and one of 1 back, each after an activation, beside a shortcut.

    The shortcut is a convolution of 1 where `shortcut` says so, and the input otherwise.
    """
    wide = Conv1d(channels, hidden, kernel, dilation=dilation, causal=causal, pad_mode=pad_mode)
    layers: dict[str, Streamed] = {
        "act1": activation(act, channels),
        "conv1": normed(wide, norm),
        "act2": activation(act, hidden),
        "conv2": normed(Conv1d(hidden, channels, 1, causal=causal), norm),
    }
    beside = normed(Conv1d(channels, channels, 1, causal=causal), norm) if shortcut else Pass()
    return Sum(Chain(layers), beside)


_FEW = 3
"""Frames up to which an LSTM takes one after another on a CPU: oneDNN lays out all its weights anew in each call, which
takes three times as long as a frame does."""


class LSTMState(NamedTuple):
    hidden: Tensor
    """(B, layers, C)."""
    cell: Tensor
    """(B, layers, C)."""


class LSTM(Streamed):
    """A forward LSTM beside a shortcut; it remembers the whole past."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.permute(2, 0, 1)
        return (self.lstm(frames)[0] + frames).permute(1, 2, 0)

    def init_state(self, batch: int = 1) -> LSTMState:
        zeros = next(self.parameters()).new_zeros(batch, self.lstm.num_layers, self.lstm.hidden_size)
        return LSTMState(zeros, zeros)

    def step(self, x: Tensor, state: LSTMState, last: bool = False) -> tuple[Tensor, LSTMState]:
        if not x.shape[2]:
            return x, state
        frames = x.permute(2, 0, 1)
        if x.device.type == "cpu" and len(frames) <= _FEW:
            return self._one_by_one(frames, state)
        # cuDNN and oneDNN want the layers first; a state has its items first, so that single ones can be reset.
        before = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).contiguous())
        y, (hidden, cell) = self.lstm(frames, before)
        return (y + frames).permute(1, 2, 0), LSTMState(hidden.transpose(0, 1), cell.transpose(0, 1))

    def _one_by_one(self, frames: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """`step` for frames (n, B, C)."""
        hidden, cell = list(state.hidden.unbind(1)), list(state.cell.unbind(1))
        out = []
        for frame in frames:
            y = frame
            for layer, weights in enumerate(self.lstm.all_weights):
                y, cell[layer] = torch.lstm_cell(y, (hidden[layer], cell[layer]), *weights)
                hidden[layer] = y
            out.append(y + frame)
        return torch.stack(out, 2), LSTMState(torch.stack(hidden, 1), torch.stack(cell, 1))
