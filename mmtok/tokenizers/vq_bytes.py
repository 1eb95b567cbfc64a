"""Texts as bytes to codes through networks and any quantizer, and back to as many bytes: lossy, unlike a vocabulary.

It puts text before the same quantizers, trainer and measures as pictures and sounds. For a language model that reads
text, a vocabulary (`subword`) is shorter and exact: docs/text_neural.md says when this is of use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.networks.base import EncoderConfig, networks
from mmtok.networks.bytes1d import Bytes1dConfig
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.base import Tokenizer, TokenizerConfig, evaluating, register_tokenizer
from mmtok.tokenizers.budget import Budget
from mmtok.tokenizers.checks import refuse_ids
from mmtok.tokenizers.latents import Latents
from mmtok.tokenizers.texts import check_texts, read_text, write_text

VALUES = 256
"""Of a byte."""
PIECE = 1 << 14
"""Positions computed at once outside training; longer texts take several pieces, with what each sees around it."""


@dataclass(frozen=True, kw_only=True)
class VQBytesConfig(TokenizerConfig):
    encoder: EncoderConfig = field(default_factory=Bytes1dConfig)
    """Encoder and decoder. Its `in_channels` and `dim` are filled in."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", self.encoder.filled(VALUES, self.dim))


@register_tokenizer("vq_bytes", VQBytesConfig)
class VQBytesTokenizer(Tokenizer):
    """x list[str] <-> ids (B, L, ceil(S / hop)), S the bytes of the longest, `hop` bytes a position.

    In training and beside measures x is bytes (B, 1, S), uint8, with `lengths` (B,) where padded: a signal of one
    channel. What a pass gives of it is logits (B, 256, S). A padded batch gives each text what it gives alone, and what
    stands in padding changes nothing. How long a text is, is told beside the codes; what it says may come back wrong.
    """

    config: VQBytesConfig
    suffix = ".txt"
    gives = "logits"

    def __init__(self, config: VQBytesConfig, quantizer: Quantizer) -> None:
        super().__init__()
        self.config = config
        self.networks = networks.build(config.encoder)
        self.quantizer = quantizer

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(
            modality="text",
            codebook_sizes=tuple(self.quantizer.codebook_sizes),
            downsample=self.networks.downsample,
        )

    def describe(self) -> dict[str, str]:
        spec, hop = self.spec, self.networks.downsample
        parts = (self.networks.encoder, self.networks.decoder, self.quantizer)
        counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
        reach = self.networks.reach
        return {
            "bytes a position": f"{hop}",
            "levels": " + ".join(map("{:,}".format, spec.codebook_sizes)) or "none (no codes)",
            "bits a byte": f"{spec.bits_per_position / hop:.2f}",
            "parameters": "{:.2f} M (encoder {:.2f}, decoder {:.2f})".format(sum(counts), *counts),
            "receptive field": "not known" if reach is None else f"encoder {sum(reach.encoder) + hop:,} bytes",
        }

    def preprocess(self, source: Any) -> list[str]:  # type: ignore[override]
        """A path, bytes in UTF-8, a text or several -> list of texts.

        Raises:
            ValueError: no text.
        """
        return read_text(source)

    def check(self, x: Any) -> None:
        if not isinstance(x, Tensor):
            check_texts(x)
        elif x.ndim != 3 or x.shape[1] != 1 or x.dtype != torch.uint8:
            raise ValueError(
                f"bytes are (batch, 1, length) of uint8, got {tuple(x.shape)} of {x.dtype}. Use a list of texts."
            )

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        batch, _, longest = x.shape
        hop, device = self.networks.downsample, x.device
        sizes = torch.full((batch,), longest, device=device) if lengths is None else lengths.to(device)
        positions = (sizes + hop - 1).div(hop, rounding_mode="floor")
        count = max(-(-longest // hop), 1)  # convolutions refuse to look at nothing
        x = F.pad(x.long(), (0, count * hop - longest))
        x = x.masked_fill(torch.arange(count * hop, device=device) >= sizes[:, None, None], VALUES)
        mask = torch.arange(count, device=device) < positions[:, None]
        around = 0 if self.networks.reach is None else -(-max(self.networks.reach.encoder) // hop)
        z = self._in_pieces(self.networks.encoder, x, mask, (hop, 1), around).transpose(1, 2)
        whole = lengths is None and longest > 0
        return Latents(z, None if whole else mask, None, sizes[:, None])

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        """Values (B, T, D) -> logits (B, 256, S)."""
        steps = 1, self.networks.downsample
        logits = self._in_pieces(self.networks.decoder, values.transpose(1, 2), mask, steps, self._around_decoder)
        return logits[..., : size[0]]

    def _likeliest(self, z: Tensor, mask: Tensor | None) -> Tensor:
        """Bytes (B, 1, S), uint8: a book's logits would take a thousand times its room."""
        return self.networks.decoder(z, mask).argmax(1, keepdim=True).to(torch.uint8)

    @property
    def _around_decoder(self) -> int:
        return 0 if self.networks.reach is None else max(self.networks.reach.decoder)

    def _in_pieces(
        self, network: Callable[..., Tensor], x: Tensor, mask: Tensor | None, steps: tuple[int, int], around: int
    ) -> Tensor:
        """What a network makes of x (B, C, n), a long one piece by piece, so that memory does not grow with a book.

        Each piece is given as much on either side as it sees, and that is cut off again: the result is the same.

        Args:
            network: encoder or decoder.
            x: bytes or values.
            mask: (B, T) of positions; None where all are.
            steps: numbers of x, and of the result, that a position has.
            around: positions that one sees on either side; 0 where that is not known, and all is one piece.
        """
        count, learns = x.shape[2] // steps[0], self.training and torch.is_grad_enabled()
        if count <= PIECE or not around or learns:
            return network(x, mask)
        parts = []
        for start in range(0, count, PIECE):
            low, high = max(0, start - around), min(count, start + PIECE + around)
            part = network(x[..., low * steps[0] : high * steps[0]], None if mask is None else mask[:, low:high])
            parts.append(part[..., (start - low) * steps[1] : (min(start + PIECE, count) - low) * steps[1]])
        return torch.cat(parts, 2)

    def encode(
        self, x: Sequence[str] | Tensor, lengths: Tensor | None = None, *, budget: int | str | Budget | None = None
    ) -> Codes:
        """Texts -> codes; or bytes (B, 1, S) with their `lengths`. `budget` as of the base.

        Raises:
            ValueError: something else, or lengths beside texts, which have their own.
        """
        self.check(x)
        if not isinstance(x, Tensor):
            if lengths is not None:
                raise ValueError("texts have their own lengths. Leave lengths out.")
            x, lengths = to_bytes(x, next(self.parameters()).device)
        return super().encode(x, lengths, budget=budget)

    def decode(self, codes: Codes) -> list[str]:  # type: ignore[override]
        """Codes -> texts. What came back as no UTF-8 is written as U+FFFD, the replacement character.

        Raises:
            ValueError: more bytes are promised than the positions hold; or these are ids alone.
        """
        x = self.decode_bytes(codes).cpu().numpy()
        return [row[0, :size].tobytes().decode("utf-8", "replace") for row, size in zip(x, _sizes(codes), strict=True)]

    def decode_bytes(self, codes: Codes) -> Tensor:
        """Codes -> bytes (B, 1, S), uint8, S the largest length; zeros behind shorter ones.

        Raises:
            ValueError: as of `decode`.
        """
        refuse_ids(codes)
        hop = self.networks.downsample
        if any(size > length * hop for size, length in zip(_sizes(codes), codes.lengths.tolist(), strict=True)):
            raise ValueError(
                f"{codes.lengths.tolist()} positions of {hop} bytes cannot hold {_sizes(codes)} bytes. lengths count "
                "positions, source_size bytes."
            )
        with torch.inference_mode(), evaluating(self):
            values = self.quantizer.decode(codes.ids).transpose(1, 2)
            mask = torch.arange(values.shape[2], device=values.device) < codes.lengths[:, None]
            x = self._in_pieces(self._likeliest, values, mask, (1, hop), self._around_decoder)
        x = x[..., : max(_sizes(codes))]
        within = torch.arange(x.shape[2], device=x.device) < codes.source_size[..., None].to(x.device)
        return x.masked_fill(~within, 0)

    def write(self, x: Sequence[str], path: Path) -> None:  # type: ignore[override]
        write_text(x[0], path)


def to_bytes(texts: Sequence[str], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Texts -> UTF-8 (B, 1, S), uint8, zeros behind shorter ones, and lengths (B,)."""
    encoded = [text.encode() for text in texts]
    lengths = torch.tensor([len(one) for one in encoded], dtype=torch.int64)
    x = torch.zeros(len(encoded), 1, max(map(len, encoded), default=0), dtype=torch.uint8)
    for row, one in zip(x, encoded, strict=True):
        if one:
            row[0, : len(one)] = torch.frombuffer(bytearray(one), dtype=torch.uint8)
    return x.to(device), lengths.to(device)


def _sizes(codes: Codes) -> list[int]:
    return codes.source_size[:, 0].tolist()
