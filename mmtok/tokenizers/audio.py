"""Sounds of any length to frames of codes, and back to the same number of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.networks.base import EncoderConfig, networks
from mmtok.networks.seanet import SEANetConfig
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers import sounds
from mmtok.tokenizers.base import Tokenizer, TokenizerConfig, register_tokenizer
from mmtok.tokenizers.checks import refuse_ids
from mmtok.tokenizers.latents import Latents
from mmtok.tokenizers.streaming import Stream, open_stream

LEVEL = 0.1
"""Root mean square that `normalize: rms` brings sounds to (-20 dB of full scale), and that codes without a gain get."""
_QUIETEST = 1e-4
"""Quieter ones are raised by no more than these: noise floors and silence stay what they are (audio.md trap 34)."""


@dataclass(frozen=True, kw_only=True)
class AudioTokenizerConfig(TokenizerConfig):
    sample_rate: int = 24000
    """Samples a second."""
    channels: int = 1
    """1 for mono, 2 for stereo."""
    dim: int = 128
    """Channels of the latents between network and quantizer. Filled into `quantizer.dim`."""
    normalize: Literal["none", "rms"] = "none"
    """`rms` brings each whole sound to one level before the encoder, as EnCodec at 48 kHz does its segments; the gain
    travels beside the codes. Such sounds cannot be streamed: their level is known at the end."""
    encoder: EncoderConfig = field(default_factory=SEANetConfig)
    """Encoder and decoder. Its `in_channels` and `dim` are filled in."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        object.__setattr__(self, "encoder", self.encoder.filled(self.channels, self.dim))


@register_tokenizer("audio", AudioTokenizerConfig)
class AudioTokenizer(Tokenizer):
    """x (B, C, S) in [-1, 1] at `sample_rate` <-> ids (B, L, ceil(S / hop)), hop samples a frame.

    Sounds are extended by silence to whole frames, and cut to their length when they come back. A padded batch with
    `lengths` gives each item what it gives alone (audio.md trap 28): in one pass where nothing depends on what follows,
    otherwise in one pass for each number of frames. In training it is one pass always, and what is shorter than a crop
    is followed by silence: passes by length would read from the device, and be many.
    """

    config: AudioTokenizerConfig
    suffix = ".wav"

    def __init__(self, config: AudioTokenizerConfig, quantizer: Quantizer) -> None:
        super().__init__()
        self.config = config
        self.networks = networks.build(config.encoder)
        self.quantizer = quantizer

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(
            modality="audio",
            codebook_sizes=tuple(self.quantizer.codebook_sizes),
            downsample=self.networks.downsample,
            channels=self.config.channels,
            sample_rate=self.config.sample_rate,
        )

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second, exactly."""
        return Fraction(self.config.sample_rate, self.networks.downsample)

    def describe(self) -> dict[str, str]:
        spec, rate = self.spec, self.frame_rate
        sizes = spec.codebook_sizes
        levels = f"{len(sizes)} of {sizes[0]:,}" if len(set(sizes)) == 1 else " + ".join(map("{:,}".format, sizes))
        parts = (self.networks.encoder, self.networks.decoder, self.quantizer)
        counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
        return {
            "sample rate": f"{spec.sample_rate:,} Hz",
            "frames/s": _exactly(rate),
            "levels": levels or "none (no codes)",
            "bits/s": f"{float(spec.bits_per_position * rate):,.0f}",
            "tokens/s": f"{float(len(sizes) * rate):,.4g}",
            "parameters": "{:.2f} M (encoder {:.2f}, decoder {:.2f})".format(sum(counts), *counts),
            "receptive field": self._field(),
            "latency": self._latency(),
        }

    def _field(self) -> str:
        reach, hop = self.networks.reach, self.networks.downsample
        if reach is None:
            return "not known"
        encoder, decoder = sum(reach.encoder) + hop, sum(reach.decoder) + 1
        said = f"encoder {encoder:,} samples ({self._ms(encoder)}), decoder {decoder} frames"
        return f"{said}; {' and '.join(reach.beyond)} sees everything before" if reach.beyond else said

    def _latency(self) -> str:
        """From a sample to the moment it can be heard again, computing aside."""
        hop, reach = self.networks.downsample, self.networks.reach
        if reach is None:
            return "not known"
        samples = hop + reach.encoder[1] + reach.decoder[1] * hop
        said = f"{samples:,} samples ({self._ms(samples)})"
        if not self.networks.latency:
            return said
        first = hop + self.networks.latency
        return f"{said}; a stream's first frame waits for {first:,} ({self._ms(first)})"

    def _ms(self, samples: int) -> str:
        return f"{samples / self.config.sample_rate * 1000:.4g} ms"

    def preprocess(self, source: Any, *, sample_rate: int | None = None) -> Tensor:
        """A path, bytes, array or tensor -> x (1, C, S) in [-1, 1] at the tokenizer's rate.

        Args:
            source: see `mmtok.tokenizers.sounds.read_sound`.
            sample_rate: of an array; None means that it has the tokenizer's already. Files say theirs.

        Raises:
            ValueError: no sound, empty, not finite, or far too loud.
        """
        return sounds.read_sound(source, self.config.sample_rate, self.config.channels, sample_rate)

    def check(self, x: Tensor) -> None:
        sounds.check_sound(x, self.config.channels)

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        sounds.check_layout(x, self.config.channels)
        batch, _, samples = x.shape
        hop = self.networks.downsample
        frames, mask = None, None
        sizes = torch.full((batch,), samples, device=x.device)
        if lengths is not None:
            sizes = lengths.to(sizes)
            # `where`, not a product: whatever stands in padding, NaN too, must not reach the items.
            x = x.where(torch.arange(samples, device=x.device) < sizes[:, None, None], 0.0)
            frames = (sizes + hop - 1).div(hop, rounding_mode="floor")
            mask = torch.arange(-(-samples // hop), device=x.device) < frames[:, None]
        gain = None
        if self.config.normalize == "rms":
            gain = self.gain_of(x, sizes)
            x = x / gain[:, None, None]
        x = F.pad(x, (0, -samples % hop))
        z = self.networks.encoder(x) if self._alike(frames) else self._by_frames(x, frames, encode=True)
        return Latents(z.transpose(1, 2), mask, None, sizes[:, None], gain)

    @staticmethod
    def gain_of(x: Tensor, sizes: Tensor) -> Tensor:
        """What `normalize: rms` divides x (B, C, S) by, (B,): of `sizes` (B,) samples each, and silence after them."""
        power = x.float().square().sum((1, 2)) / (sizes * x.shape[1]).clamp(min=1)
        return power.sqrt().clamp(min=_QUIETEST) / LEVEL

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        z = values.transpose(1, 2)
        frames = None if mask is None else mask.sum(1)
        x = self.networks.decoder(z) if self._alike(frames) else self._by_frames(z, frames, encode=False)
        # Longer than asked for where the last frame was not full; shorter where weights of DAC lose samples at odd
        # strides (audio.md trap 23): those are silent.
        x = F.pad(x[..., : size[0]], (0, max(size[0] - x.shape[2], 0)))
        return x if gain is None else x * gain.to(x)[:, None, None]

    def _alike(self, frames: Tensor | None) -> bool:
        """Whether a batch goes through the networks in one pass: what follows an item does not change it, or may."""
        learns = self.training and torch.is_grad_enabled()
        return frames is None or self.networks.streams_exactly or learns

    def _by_frames(self, x: Tensor, frames: Tensor | None, *, encode: bool) -> Tensor:
        """One pass for each number of frames in a batch: elsewhere an item would see padding that it has not alone."""
        assert frames is not None
        network, hop = (self.networks.encoder, self.networks.downsample) if encode else (self.networks.decoder, 1)
        whole = x.shape[2] // hop
        parts: list[tuple[Tensor, Tensor]] = []
        for count in frames.unique().tolist():
            items = (frames == count).nonzero()[:, 0]
            if count == whole and len(items) == len(x):
                return network(x)
            if count:
                parts.append((items, network(x[items, :, : count * hop])))
        longest = whole if encode else whole * self.networks.downsample
        channels = self.config.dim if encode else self.config.channels
        like = parts[0][1] if parts else x
        y = like.new_zeros(len(x), channels, longest)
        for items, part in parts:
            y = y.index_copy(0, items, F.pad(part, (0, longest - part.shape[2])))
        return y

    def decode(self, codes: Codes) -> Tensor:
        """Codes -> x (B, C, S) with S the largest length of the batch; shorter ones end in silence.

        Raises:
            ValueError: more samples are promised than the frames hold; or these are ids alone.
        """
        refuse_ids(codes)
        self.check_sizes(codes)
        x = super().decode(codes)
        within = torch.arange(x.shape[2], device=x.device) < codes.source_size[..., None].to(x.device)
        return x.where(within, 0.0)

    def check_sizes(self, codes: Codes) -> None:
        """Refuse codes that promise more than their frames hold.

        Raises:
            ValueError: names the sizes.
        """
        hop, lengths, sizes = self.networks.downsample, codes.lengths, codes.source_size
        if (sizes[:, 0] > lengths * hop).any() or (lengths > codes.ids.shape[2]).any():
            raise ValueError(
                f"{lengths.tolist()} frames of {hop} samples cannot hold {sizes.flatten().tolist()} samples. "
                "lengths count frames, source_size samples."
            )

    def streaming(self, batch: int = 1, *, budget: int | None = None) -> Stream:
        """Encode and decode pieces as they come, of `batch` streams at a time; see `mmtok.tokenizers.streaming.Stream`.

        Raises:
            ValueError: the network is not causal, or something else needs the whole sound.
        """
        return open_stream(self, batch, budget)

    def write(self, x: Tensor, path: Path) -> None:
        self.write_pieces(iter([x]), path)

    def write_pieces(self, pieces: Iterator[Tensor], path: Path) -> None:
        """Write pieces (1, C, n) of one signal, one after another, as `write` would the whole."""
        sounds.write_wave(pieces, path, self.config.sample_rate)


def _exactly(rate: Fraction) -> str:
    return str(rate) if rate.denominator == 1 else f"{float(rate):.4g} ({rate})"
