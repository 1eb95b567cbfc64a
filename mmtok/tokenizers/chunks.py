"""Long sounds in chunks: the memory of one chunk, whatever their duration; the codes are those of the whole.

Convolutions see finitely far (`Networks.reach`): a chunk computed with that much of its surroundings, and then cut to
itself, is what the whole gives there (audio.md trap 25). An LSTM remembers everything before, so its state is carried
from chunk to chunk. What allows neither is computed with a part of its surroundings; `measure` says what that costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import Codes
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.budget import Budget, levels_alone
from mmtok.tokenizers.streaming import Stream

SECONDS = 10.0
"""Length of a chunk, where none is given. What surrounds it is computed beside."""
LONG = 60.0
"""Seconds above which the commands encode and decode in chunks of their own accord."""


class Comparison(NamedTuple):
    """Chunks against the whole."""

    difference: float
    """Largest absolute difference between the two decodings of the same codes, in the units of x."""
    ids_differ: float
    """Share of ids that differ between the two encodings."""


class Chunked:
    """Encodes and decodes with an audio tokenizer, chunk by chunk.

    Sounds and codes may lie on another device than the tokenizer: chunks are sent there, and results come back.

    Attributes:
        by: how the chunks are joined, by `overlap` or by carried `state`.
        approximate: why the results differ from those of the whole; None where they are the same to rounding.
    """

    def __init__(self, tokenizer: Tokenizer, seconds: float = SECONDS, overlap: float | None = None) -> None:
        """Choose the chunks.

        Args:
            tokenizer: an audio tokenizer whose quantizer takes each frame by itself.
            seconds: length of what is kept of a chunk; rounded down to frames.
            overlap: seconds computed beyond it on each side; None takes what the network sees, or carries the state.

        Raises:
            ValueError: the chunk is shorter than a frame, or the tokenizer cannot be chunked.
        """
        if not isinstance(tokenizer, AudioTokenizer):
            raise ValueError(f"Only sounds come in chunks; this tokenizer is a {type(tokenizer).__name__}.")
        if not self.possible(tokenizer):
            raise ValueError("This quantizer needs the whole sound at once, so it cannot come in chunks.")
        self.tokenizer, self.hop = tokenizer, tokenizer.networks.downsample
        self.frames = int(seconds * tokenizer.config.sample_rate) // self.hop
        if self.frames < 1:
            frame = self.hop / tokenizer.config.sample_rate
            raise ValueError(f"chunks of {seconds:g} s are shorter than a frame. Use {frame:.4g} s or more.")
        if overlap is not None and overlap < 0:
            raise ValueError(f"overlap={overlap:g} is negative. Use 0 or more seconds.")
        self.by: Literal["overlap", "state"] = "overlap"
        self.approximate: str | None = None
        self.encoder_halo, self.decoder_halo = self._choose(overlap)

    @staticmethod
    def possible(tokenizer: Tokenizer) -> bool:
        """Whether each frame is quantized by itself, also by quantizers within quantizers."""
        return all(part.pointwise for part in tokenizer.quantizer.modules() if isinstance(part, Quantizer))

    def _choose(self, overlap: float | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """Frames computed before and after a chunk, in encoder and decoder; sets how, and what is wrong with it."""
        reach = self.tokenizer.networks.reach
        finite = reach is not None and not reach.beyond
        if overlap is None and not finite and Stream.possible(self.tokenizer):
            self.by = "state"
            return (0, 0), (0, 0)
        if reach is not None:
            before, after = (-(-samples // self.hop) for samples in reach.encoder)
            needed = self._around((before, after)), self._around(reach.decoder)
        if overlap is None and finite:
            return needed
        own = self.frames // 4 if overlap is None else -(-int(overlap * self.tokenizer.config.sample_rate) // self.hop)
        if reach is None:
            self.approximate = "how far its network sees is not known"
        elif reach.beyond:
            self.approximate = f"its {' and '.join(reach.beyond)} cannot be carried from chunk to chunk"
        elif (far := max(*needed[0], *needed[1])) > own:
            self.approximate = f"chunks overlap by {own} frames and the network sees {far}"
        return (own, own), (own, own)

    def _around(self, reach: tuple[int, int]) -> tuple[int, int]:
        """Where padding reflects, the ends of a sound depend on what is behind the mirror as well."""
        return reach if self.tokenizer.networks.streams_exactly else (sum(reach), sum(reach))

    def count(self, samples: int) -> int:
        """Chunks of a sound."""
        return max(-(-samples // (self.frames * self.hop)), 1)

    def encode(self, x: Tensor, lengths: Tensor | None = None, *, budget: int | str | Budget | None = None) -> Codes:
        """Sounds (B, C, S) -> the codes of the whole; see `Tokenizer.encode`.

        Raises:
            ValueError: as `Tokenizer.encode`; or lengths, since long sounds are encoded one by one.
        """
        if lengths is not None:
            raise ValueError("Chunks have no lengths: encode long sounds one by one, or those of one length together.")
        self.tokenizer.check(x)
        gain = None
        if self.tokenizer.config.normalize != "none":
            gain = self.tokenizer.gain_of(x, torch.full((len(x),), x.shape[2], device=x.device))
        return self._encode(x.split(self.frames * self.hop, 2), levels_alone(budget, "Sounds in chunks"), gain)

    def encode_pieces(self, pieces: Iterable[Tensor], *, budget: int | str | Budget | None = None) -> Codes:
        """The same for a sound that comes in pieces x (B, C, n), as from `sounds.file_blocks`.

        Raises:
            ValueError: there are no samples; or the level of the whole must be known before.
        """
        if self.tokenizer.config.normalize != "none":
            raise ValueError("normalize needs the level of the whole sound before its first piece. Use encode.")
        return self._encode(self._checked(pieces), levels_alone(budget, "Sounds in chunks"), None)

    def _checked(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        for piece in pieces:
            if piece.shape[-1]:
                self.tokenizer.check(piece)
                yield piece

    @torch.inference_mode()
    def _encode(self, pieces: Iterable[Tensor], budget: int | None, gain: Tensor | None) -> Codes:
        ids, samples, home = [], 0, torch.device("cpu")

        def taken() -> Iterator[Tensor]:
            nonlocal samples, home
            for piece in pieces:
                samples, home = samples + piece.shape[2], piece.device
                yield (piece if gain is None else piece / gain[:, None, None]).to(self._device)

        with evaluating(self.tokenizer):
            for part in (self._by_state if self.by == "state" else self._by_overlap)(taken(), budget):
                ids.append(part.to(home))
        if not samples:
            raise ValueError("The sound holds no samples.")
        joined = torch.cat(ids, 2)
        batch, _, frames = joined.shape
        sizes = torch.full((batch, 1), samples, device=home)
        extras = {} if gain is None else {"gain": gain}
        return Codes(joined, torch.full((batch,), frames, device=home), sizes, extras=extras)

    def _by_state(self, pieces: Iterator[Tensor], budget: int | None) -> Iterator[Tensor]:
        stream = None
        for piece in pieces:
            stream = stream or Stream(self.tokenizer, len(piece), budget)
            yield stream.take(piece).ids
        if stream is not None:
            yield stream.finish_encode().ids

    def _by_overlap(self, pieces: Iterator[Tensor], budget: int | None) -> Iterator[Tensor]:
        before, after = self.encoder_halo
        buffer, first, start = None, 0, 0  # the buffer begins at frame `first`; codes are given up to `start`
        for piece in pieces:
            buffer = piece if buffer is None else torch.cat([buffer, piece], 2)
            # One frame more than is seen, so that the end, which is padded, is always left for the last chunk.
            while buffer.shape[2] > (start + self.frames + after - first) * self.hop:
                stop = start + self.frames
                yield self._ids(buffer[..., : (stop + after - first) * self.hop], start - first, stop - first, budget)
                drop = max(stop - before, 0) - first
                buffer = buffer[..., drop * self.hop :].clone()
                first, start = first + drop, stop
        if buffer is not None:
            yield self._ids(F.pad(buffer, (0, -buffer.shape[2] % self.hop)), start - first, None, budget)

    def _ids(self, x: Tensor, start: int, stop: int | None, budget: int | None) -> Tensor:
        z = self.tokenizer.networks.encoder(x)[..., start:stop].transpose(1, 2)
        return self.tokenizer.quantizer.encode(z, levels=self.tokenizer.kept_levels(len(x), budget))

    def decode(self, codes: Codes) -> Tensor:
        """Codes of sounds, however they were encoded -> x (B, C, S), as `AudioTokenizer.decode` gives it.

        Raises:
            ValueError: sounds of several lengths, which would need several passes.
        """
        x, at = None, 0
        for piece in self.decode_pieces(codes):
            if x is None:
                x = piece.new_zeros(*piece.shape[:2], int(codes.source_size.max()))
            x[..., at : at + piece.shape[2]] = piece
            at += piece.shape[2]
        assert x is not None
        return x

    @torch.inference_mode()
    def decode_pieces(self, codes: Codes) -> Iterator[Tensor]:
        """The same in pieces (B, C, n), one after another, so that a sound of hours is never in memory as a whole."""
        frames, samples = codes.ids.shape[2], int(codes.source_size.max())
        if (codes.lengths != frames).any() or (codes.source_size != samples).any():
            raise ValueError("Codes of sounds of several lengths are decoded one by one, or by the tokenizer itself.")
        self.tokenizer.check_sizes(codes)
        gain = codes.extras.get("gain")
        with evaluating(self.tokenizer):
            for piece in (self._sound_by_state if self.by == "state" else self._sound_by_overlap)(codes, samples):
                piece = piece.to(codes.ids.device)
                yield piece if gain is None else piece * gain.to(piece)[:, None, None]

    def _sound_by_state(self, codes: Codes, samples: int) -> Iterator[Tensor]:
        stream = Stream(self.tokenizer, len(codes))
        left = samples
        for ids in codes.ids.split(self.frames, 2):
            size = min(ids.shape[2] * self.hop, left)
            left -= size
            lengths = torch.full((len(ids),), ids.shape[2])
            yield stream.decode(Codes(ids, lengths, torch.full((len(ids), 1), size)))
        yield stream.finish_decode()

    def _sound_by_overlap(self, codes: Codes, samples: int) -> Iterator[Tensor]:
        (before, after), frames = self.decoder_halo, codes.ids.shape[2]
        borders = [*range(0, frames, self.frames), frames]
        for start, stop in pairwise(borders):
            first, last = max(start - before, 0), min(stop + after, frames)
            values = self.tokenizer.quantizer.decode(codes.ids[..., first:last].to(self._device))
            size = (min((last - first) * self.hop, samples - first * self.hop),)
            x = self.tokenizer.synthesise(values, None, size)
            # All samples of its frames, not as many as the rest happens to give (audio.md trap 25).
            yield x[..., (start - first) * self.hop : (stop - first) * self.hop]

    @property
    def _device(self) -> torch.device:
        return next(self.tokenizer.parameters()).device


def measure(chunked: Chunked, x: Tensor) -> Comparison:
    """Encode and decode sounds (B, C, S) in chunks and whole: for those that fit, as the first minute of a long one."""
    x = x.to(next(chunked.tokenizer.parameters()).device)
    codes, other = chunked.tokenizer.encode(x), chunked.encode(x)
    difference = chunked.decode(codes) - chunked.tokenizer.decode(codes)
    return Comparison(difference.abs().max().item(), (codes.ids != other.ids).float().mean().item())
