"""The encoder and decoder of waveform codecs: SoundStream, EnCodec, DAC and Mimi are settings of it.

SEANet (Tagliasacchi et al. 2020, arXiv 2009.02095) as SoundStream (Zeghidour et al. 2021, arXiv 2107.03312), EnCodec
(Defossez et al. 2022, arXiv 2210.13438), DAC (Kumar et al. 2023, arXiv 2306.06546) and Mimi (Defossez et al. 2024,
arXiv 2410.00037) have it. All of it streams where it is causal; parameters map one to one onto those of transformers'
`EncodecModel`, `DacModel` and `MimiModel` (mmtok/export).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mmtok.networks.attention1d import transformer
from mmtok.networks.base import EncoderConfig, Networks, Reach, register_network
from mmtok.networks.blocks1d import LSTM, Activation, Pass, activation, residual
from mmtok.networks.conv1d import Conv1d, ConvTranspose1d, Norm, PadMode, TransposePadding, normed
from mmtok.networks.streamed import Chain, State, Streamed


@dataclass(frozen=True)
class SEANetConfig(EncoderConfig):
    channels: int = 32
    """Width of the encoder at the full rate; it doubles at each stride."""
    decoder_channels: int | None = None
    """Width of the decoder at the lowest rate; it halves at each stride. None means as wide as the encoder there."""
    strides: tuple[int, ...] = (2, 4, 5, 8)
    """Strides of the encoder, from the full rate down; their product is the samples of a frame."""
    kernel: int = 7
    """Kernel of the first convolution of encoder and decoder."""
    latent_kernel: int = 7
    """Kernel of the encoder's last convolution."""
    last_kernel: int = 7
    """Kernel of the decoder's last convolution."""
    dilations: tuple[int, ...] = (1,)
    """Dilation of each residual block before a stride (after it, in the decoder): 1, 3, 9 in SoundStream and DAC."""
    residual_kernel: int = 3
    """Kernel of the dilated convolutions; 7 in SoundStream and DAC."""
    compress: int = 2
    """How many times narrower a residual block is inside; 1 in SoundStream and DAC."""
    shortcut: Literal["identity", "conv"] = "identity"
    """What a residual block is added to: its input, or that through a convolution of 1 (EnCodec)."""
    activation: Activation = "elu"
    """`snake` suits music, and costs about a third more."""
    core: Literal["none", "lstm", "attention"] = "none"
    """What sees far, at the frame rate on both sides: nothing, an LSTM (EnCodec; the whole past) or local attention."""
    core_layers: int = 2
    """Layers of it."""
    core_at: Literal["widest", "latents"] = "widest"
    """Where it is: among the channels of the lowest rate, or beyond the convolutions, among those of `dim` (Mimi)."""
    core_bias: bool = True
    """Whether what follows attention has biases; not in Mimi."""
    core_scale: float | None = None
    """What the factors begin with that each channel of attention, and of what follows it, is added with: 0.01 in Mimi.
    None adds them as they are."""
    latent_stride: int = 1
    """A stride besides, next to the latents: 2 in Mimi. Down by a convolution without a bias that finds its first
    sample repeated before it; up channel by channel."""
    attention_heads: int = 8
    """Heads of the attention."""
    attention_window: int = 32
    """Frames that attention sees, its own included, and as many after it where the network is not causal."""
    causal: bool = True
    """Whether nothing depends on samples after its frame, so that it streams without waiting."""
    pad_mode: PadMode = "zeros"
    """What convolutions find before the beginning: `zeros`, the first sample repeated (`replicate`), or the beginning
    mirrored. `reflect` is EnCodec's: a stream then waits for its first frames."""
    transpose_padding: TransposePadding = "exact"
    """`exact` gives as many samples as went in. `dac`, as DAC's weights were trained, one fewer at each odd stride,
    which is one fewer of that layer's; the tokenizer pads them. Only where not causal."""
    norm: Norm = "weight"
    """Weight normalisation of all convolutions; it costs time in training and is folded for use."""
    tanh: bool = False
    """Whether the signal is squashed into [-1, 1] at the end, as in DAC."""

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"strides must be one or more positive numbers, got {self.strides}.")
        if min(self.dilations, default=1) < 1:
            raise ValueError(f"dilations must be positive, got {self.dilations}.")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.width % 2 ** len(self.strides):
            raise ValueError(
                f"decoder_channels={self.width} cannot be halved {len(self.strides)} times. "
                f"Use a multiple of {2 ** len(self.strides)}."
            )
        if self.transpose_padding == "dac" and self.causal:
            raise ValueError("transpose_padding=dac is for causal=false; causal networks are exact already.")
        among = max(self.channels * 2 ** len(self.strides), self.width) if self.core_at == "widest" else self.dim
        if self.core == "attention" and among % (2 * self.attention_heads):
            raise ValueError(f"attention_heads={self.attention_heads} must divide {among} channels into even widths.")

    @property
    def width(self) -> int:
        """Channels of the decoder at the lowest rate."""
        return self.channels * 2 ** len(self.strides) if self.decoder_channels is None else self.decoder_channels


_POSITIVE = (
    "channels", "kernel", "latent_kernel", "last_kernel", "residual_kernel", "compress", "core_layers",
    "attention_heads", "attention_window", "latent_stride",
)  # fmt: skip


class Half(Chain):
    """An encoder or a decoder, whole by `forward`, in pieces by `init_state`, `step` and `finish`."""

    def __init__(self, channels: int, layers: Mapping[str, Streamed]) -> None:
        super().__init__(layers)
        self.channels = channels
        """Of what comes in."""

    def finish(self, state: State) -> Tensor:
        """What is left to give where the signal ends, whose length must be a multiple of what goes into a frame."""
        like = next(self.parameters())
        return self.step(like.new_zeros(batch_of(state), self.channels, 0), state, last=True)[0]

    @property
    def first_after(self) -> int:
        """How many inputs must have come before the first output of a stream can be given."""
        count = 1
        while not self.ready(count):
            count *= 2
        low = count // 2
        while count - low > 1:
            middle = (low + count) // 2
            low, count = (low, middle) if self.ready(middle) else (middle, count)
        return count


def batch_of(state: State) -> int:
    """Streams of a state."""
    if isinstance(state, Tensor):
        return state.shape[0]
    return next((count for part in state if isinstance(part, Tensor | tuple) and (count := batch_of(part))), 0)


def encoder(config: SEANetConfig) -> Half:
    """Signals (B, C, S) -> latents (B, dim, S / hop)."""
    channels = config.channels
    blocks: dict[str, Streamed] = {}
    for index, stride in enumerate(config.strides):
        layers: dict[str, Streamed] = {"residuals": _residuals(config, channels)}
        layers["act"] = activation(config.activation, channels)
        layers["resample"] = _conv(config, channels, 2 * channels, 2 * stride, stride=stride)
        blocks[str(index)] = Chain(layers)
        channels *= 2
    core = {"core": _core(config, channels if config.core_at == "widest" else config.dim)}
    parts: dict[str, Streamed] = {
        "conv_in": _conv(config, config.in_channels, config.channels, config.kernel),
        "blocks": Chain(blocks),
        **(core if config.core_at == "widest" else {}),
        "act_out": activation(config.activation, channels),
        "conv_out": _conv(config, channels, config.dim, config.latent_kernel),
        **(core if config.core_at == "latents" else {}),
    }
    if (stride := config.latent_stride) > 1:
        last = Conv1d(
            config.dim, config.dim, 2 * stride, stride=stride, causal=config.causal, pad_mode="replicate", bias=False
        )
        parts["resample"] = normed(last, config.norm)
    return Half(config.in_channels, parts)


def decoder(config: SEANetConfig) -> Half:
    """Latents (B, dim, T) -> signals (B, C, T * hop)."""
    channels = config.width
    blocks: dict[str, Streamed] = {}
    for index, stride in enumerate(reversed(config.strides)):
        layers: dict[str, Streamed] = {"act": activation(config.activation, channels)}
        resample = ConvTranspose1d(
            channels,
            channels // 2,
            2 * stride,
            stride=stride,
            causal=config.causal,
            padding=config.transpose_padding,
        )
        layers["resample"] = normed(resample, config.norm)
        channels //= 2
        layers["residuals"] = _residuals(config, channels)
        blocks[str(index)] = Chain(layers)
    core = {"core": _core(config, config.width if config.core_at == "widest" else config.dim)}
    parts: dict[str, Streamed] = {
        **_first(config),
        **(core if config.core_at == "latents" else {}),
        "conv_in": _conv(config, config.dim, config.width, config.kernel),
        **(core if config.core_at == "widest" else {}),
        "blocks": Chain(blocks),
        "act_out": activation(config.activation, channels),
        "conv_out": _conv(config, channels, config.in_channels, config.last_kernel),
    }
    return Half(config.dim, parts | ({"tanh": Tanh()} if config.tanh else {}))


def _first(config: SEANetConfig) -> dict[str, Streamed]:
    """What undoes the stride next to the latents, where there is one."""
    if (stride := config.latent_stride) == 1:
        return {}
    first = ConvTranspose1d(
        config.dim, config.dim, 2 * stride, stride=stride, causal=config.causal, groups=config.dim, bias=False
    )
    return {"resample": normed(first, config.norm)}


class Tanh(Streamed):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


def _conv(config: SEANetConfig, channels: int, out_channels: int, kernel: int, stride: int = 1) -> Conv1d:
    layer = Conv1d(channels, out_channels, kernel, stride=stride, causal=config.causal, pad_mode=config.pad_mode)
    return normed(layer, config.norm)


def _residuals(config: SEANetConfig, channels: int) -> Chain:
    return Chain(
        {
            str(index): residual(
                channels,
                max(channels // config.compress, 1),
                kernel=config.residual_kernel,
                dilation=dilation,
                act=config.activation,
                shortcut=config.shortcut == "conv",
                causal=config.causal,
                pad_mode=config.pad_mode,
                norm=config.norm,
            )
            for index, dilation in enumerate(config.dilations)
        }
    )


def _core(config: SEANetConfig, channels: int) -> Streamed:
    if config.core == "lstm":
        return LSTM(channels, config.core_layers)
    if config.core == "attention":
        return transformer(
            channels,
            config.core_layers,
            config.attention_heads,
            config.attention_window,
            causal=config.causal,
            bias=config.core_bias,
            scale=config.core_scale,
        )
    return Pass()


@register_network("seanet", SEANetConfig)
class SEANet(Networks):
    """The encoder and decoder of one config.

    Both also run in steps: `init_state(batch)`, `step(x, state)`, `reset_state(state, mask)` and `finish(state)`.

    Attributes:
        causal: whether no frame depends on samples after it.
        streams_exactly: whether a stream gives each frame at once and as in one pass: causal, and not reflected.
        latency: samples beyond its own `downsample` that a stream's first frame waits for; 0 where it streams exactly.
    """

    encoder: Half
    decoder: Half

    def __init__(self, config: SEANetConfig) -> None:
        super().__init__()
        config.require_dims()
        self.config = config
        self.encoder = encoder(config)
        self.decoder = decoder(config)
        self.downsample = prod(config.strides) * config.latent_stride
        self.causal = config.causal
        self.streams_exactly = config.causal and config.pad_mode != "reflect"
        self.latency = self.encoder.first_after - self.downsample
        # At once, while there are both halves: an export may leave one out.
        low, high = self.encoder.seen(0, 0)
        first, last = self.decoder.seen(0, self.downsample - 1)
        beyond = ("LSTM",) if config.core == "lstm" else ()
        self._reach = Reach((-low, max(high - self.downsample + 1, 0)), (-first, max(last, 0)), beyond)

    @property
    def last_layer(self) -> Tensor:
        convolution = self.decoder.conv_out
        assert isinstance(convolution, nn.Conv1d)
        if not is_parametrized(convolution, "weight"):
            return convolution.weight
        # Its direction: the weight is made of it anew in each pass, and one made here would be in no graph.
        return convolution.parametrizations.weight.original1  # type: ignore[union-attr, return-value]

    @property
    def reach(self) -> Reach:
        return self._reach
