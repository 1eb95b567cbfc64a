"""Sound as it comes: pieces of any length to codes and back, equal to what the whole would give.

After Moshi (Defossez et al. 2024, arXiv 2410.00037), the one published codec that streams; here the state is a value
that can be kept, put back and copied, and the tokenizer itself holds none, so that one serves many streams.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import Codes
from mmtok.networks.streamed import State
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.base import Tokenizer, evaluating

if TYPE_CHECKING:
    from mmtok.tokenizers.audio import AudioTokenizer


class StreamState(NamedTuple):
    """Where a stream stands. Put an earlier one back, and it goes on from there."""

    pending: Tensor
    """(B, C, n) samples that do not fill a frame yet."""
    encoder: State
    unframed: int
    """Samples taken that no codes stand for yet."""
    decoder: State
    owed: int
    """Samples that the codes taken stand for, and that were not given yet."""


class Stream:
    """Encodes and decodes streams that move together, piece by piece; the two directions do not touch each other.

    Made by `AudioTokenizer.streaming`. Joined along time, what comes back is what `tokenizer.encode` and
    `tokenizer.decode` give for the whole: codes by the design's margin rule, samples to 1e-5.

    Attributes:
        state: all there is to remember, a tree of tensors.
    """

    def __init__(self, tokenizer: AudioTokenizer, batch: int = 1, budget: int | None = None) -> None:
        if batch < 1:
            raise ValueError(f"batch={batch}: a stream needs at least 1.")
        self.tokenizer, self.batch = tokenizer, batch
        self.hop = tokenizer.networks.downsample
        self._levels = tokenizer.kept_levels(batch, budget)
        # Halves of networks are plain modules to their type; those of a network that streams have steps as well.
        self._encoder: Any = tokenizer.networks.encoder
        self._decoder: Any = tokenizer.networks.decoder
        self.reset()

    @staticmethod
    def possible(tokenizer: Tokenizer) -> bool:
        """Whether the network has steps at all, and the quantizer takes each frame by itself."""
        halves = (tokenizer.networks.encoder, tokenizer.networks.decoder)
        try:
            for half in halves:
                half.init_state(1)  # type: ignore[operator]
        except (AttributeError, ValueError):
            return False
        return all(part.pointwise for part in tokenizer.quantizer.modules() if isinstance(part, Quantizer))

    @property
    def latency(self) -> int:
        """Samples that must have gone in before the first can be heard: one frame, or more where padding reflects."""
        ready = (frames for frames in count(1) if self._decoder.ready(self._encoder.ready(frames * self.hop)) > 0)
        return next(ready) * self.hop

    @torch.inference_mode()
    def reset(self, mask: Tensor | None = None) -> None:
        """Begin anew: all streams, or those of mask (B,) while the others go on.

        Raises:
            ValueError: single streams begin anew while others wait for a frame to fill, or for reflected padding.
        """
        if mask is None:
            like = next(self.tokenizer.networks.parameters())
            nothing = like.new_zeros(self.batch, self.tokenizer.config.channels, 0)
            encoder, decoder = self._encoder.init_state(self.batch), self._decoder.init_state(self.batch)
            self.state = StreamState(nothing, encoder, 0, decoder, 0)
            return
        if self.state.unframed or self.state.owed:
            raise ValueError(
                f"{self.state.unframed} samples wait for their frame and {self.state.owed} for their sound, so single "
                f"streams cannot begin anew. Do it after whole frames ({self.hop} samples), or reset all."
            )
        mask = mask.to(self.state.pending.device)
        encoder = self._encoder.reset_state(self.state.encoder, mask)
        decoder = self._decoder.reset_state(self.state.decoder, mask)
        self.state = self.state._replace(encoder=encoder, decoder=decoder)

    @torch.inference_mode()
    def encode(self, chunk: Tensor) -> Codes:
        """The next samples (B, C, n), n of any size -> the codes of all frames that are complete now, 0 or more."""
        if chunk.ndim != 3 or chunk.shape[0] != self.batch or chunk.shape[2]:
            self.tokenizer.check(chunk)
        if chunk.shape[0] != self.batch:
            raise ValueError(f"This stream has {self.batch} items, got a chunk of {chunk.shape[0]}.")
        return self.take(chunk)

    @torch.inference_mode()
    def take(self, chunk: Tensor) -> Codes:
        """`encode` without its checks: of samples that were divided by a gain, which may lie beyond [-1, 1]."""
        chunk = chunk.to(self.state.pending)
        x = torch.cat([self.state.pending, chunk], 2) if self.state.pending.shape[2] else chunk
        whole = x.shape[2] // self.hop * self.hop
        # Cloned: a view would keep the whole chunk alive.
        pending, unframed = x[..., whole:].clone(), self.state.unframed + chunk.shape[2]
        self.state = self.state._replace(pending=pending, unframed=unframed)
        return self._encode(x[..., :whole]) if whole else self._codes(None)

    @torch.inference_mode()
    def finish_encode(self) -> Codes:
        """The codes of what is left, the last frame filled with silence. The next chunk begins a new sound."""
        codes = self._codes(None)
        if self.state.unframed or self.state.pending.shape[2]:
            pending = self.state.pending
            codes = self._encode(F.pad(pending, (0, -pending.shape[2] % self.hop)), last=True)
        like = self.state.pending
        encoder = self._encoder.init_state(self.batch)
        self.state = self.state._replace(pending=like[..., :0], encoder=encoder, unframed=0)
        return codes

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """The next codes, of any number of frames -> all samples (B, C, n) that are complete now."""
        if len(codes) != self.batch:
            raise ValueError(f"This stream has {self.batch} items, got codes of {len(codes)}.")
        owed = self.state.owed + int(codes.source_size.max())
        self.state = self.state._replace(owed=owed)
        if not codes.ids.shape[2]:
            return self.state.pending[..., :0]
        with evaluating(self.tokenizer):
            values = self.tokenizer.quantizer.decode(codes.ids.to(self.state.pending.device))
            return self._give(*self._decoder.step(values.transpose(1, 2), self.state.decoder))

    @torch.inference_mode()
    def finish_decode(self) -> Tensor:
        """The samples that are left. The next codes begin a new sound."""
        x = self.state.pending[..., :0]
        if owed := self.state.owed:
            with evaluating(self.tokenizer):
                nothing = x.new_zeros(self.batch, self.tokenizer.config.dim, 0)
                x = self._give(*self._decoder.step(nothing, self.state.decoder, last=True))
            x = F.pad(x, (0, owed - x.shape[2]))  # what weights of DAC lose at odd strides (audio.md trap 23)
        self.state = self.state._replace(decoder=self._decoder.init_state(self.batch), owed=0)
        return x

    def _encode(self, x: Tensor, last: bool = False) -> Codes:
        with evaluating(self.tokenizer):
            z, encoder = self._encoder.step(x, self.state.encoder, last)
            self.state = self.state._replace(encoder=encoder)
            if not z.shape[2]:
                return self._codes(None)
            return self._codes(self.tokenizer.quantizer.encode(z.transpose(1, 2), levels=self._levels))

    def _codes(self, ids: Tensor | None) -> Codes:
        """Codes of new frames, of which the last may stand for fewer samples than a frame."""
        if ids is None:
            depth = len(self.tokenizer.quantizer.codebook_sizes)
            ids = torch.empty(self.batch, depth, 0, dtype=torch.int64, device=self.state.pending.device)
        samples = min(ids.shape[2] * self.hop, self.state.unframed)
        self.state = self.state._replace(unframed=self.state.unframed - samples)
        full = torch.full((self.batch,), ids.shape[2], device=ids.device)
        return Codes(ids, full, torch.full((self.batch, 1), samples, device=ids.device))

    def _give(self, x: Tensor, decoder: State) -> Tensor:
        x = x[..., : self.state.owed]
        self.state = self.state._replace(decoder=decoder, owed=self.state.owed - x.shape[2])
        return x


def open_stream(tokenizer: AudioTokenizer, batch: int, budget: int | None) -> Stream:
    """What `AudioTokenizer.streaming` gives, or why there can be none.

    Raises:
        ValueError: names what needs the future, and what to use instead.
    """
    networks = tokenizer.networks
    remedy = "Long files are encoded in chunks instead: mmtok.tokenizers.chunks.Chunked."
    if not networks.causal:
        raise ValueError(
            f"This network is not causal: a frame depends on samples after it. Train with encoder.causal=true. {remedy}"
        )
    if tokenizer.config.normalize != "none":
        raise ValueError(
            f"normalize={tokenizer.config.normalize} needs the level of the whole sound. Train with normalize=none. "
            f"{remedy}"
        )
    if not Stream.possible(tokenizer):
        raise ValueError(f"This quantizer needs the whole sound at once, or this network has no steps. {remedy}")
    return Stream(tokenizer, batch, budget)
