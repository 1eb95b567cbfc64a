"""Texts as bytes, as validation measures and shows them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.evaluation.byte_metrics import ByteMetrics, inside_of
from mmtok.evaluation.modality import Exhibit

SHOWN = 400
"""Bytes of each text that are shown."""


class TextMeter:
    """What `mmtok evaluate` measures of texts: how much comes back, at how many bits, and the quantization gap."""

    def __init__(self, spec: CodeSpec, device: torch.device) -> None:
        self.spec = spec
        self.reconstruction, self.bypass = ByteMetrics(device), ByteMetrics(device)
        self.positions = torch.zeros(1, dtype=torch.int64, device=device)

    @property
    def sums(self) -> dict[str, Tensor]:
        return {
            "reconstruction": self.reconstruction.sums,
            "bypass": self.bypass.sums,
            "positions": self.positions,
        }

    def update(self, x: Tensor, reconstruction: Tensor, bypass: Tensor, lengths: Tensor | None = None) -> None:
        self.reconstruction.update(x, reconstruction, lengths)
        self.bypass.update(x, bypass, lengths)
        sizes = x.new_full((len(x),), x.shape[2], dtype=torch.int64) if lengths is None else lengths
        self.positions += positions_of(sizes, self.spec.downsample).to(self.positions)

    def result(self, entropy: float | None = None) -> dict[str, float]:
        found = self.reconstruction.result()
        found["byte_accuracy_bypass"] = self.bypass.result()["byte_accuracy"]
        found["quantization_gap"] = found["byte_accuracy_bypass"] - found["byte_accuracy"]
        count, positions = self.reconstruction.bytes, int(self.positions)
        return found | rates(self.spec, positions, count, entropy, found["nll_bits_per_byte"])


def positions_of(sizes: Tensor, downsample: int) -> Tensor:
    """Positions that texts of `sizes` (B,) bytes take together."""
    return ((sizes + downsample - 1) // downsample).sum()


def rates(spec: CodeSpec, positions: int, count: float, entropy: float | None, left: float) -> dict[str, float]:
    """Bits a byte of texts, by what is known of their codes.

    Args:
        spec: of the codes.
        positions: of all texts.
        count: bytes of all texts.
        entropy: bits of a position by how often each code occurs, sum of the levels; None without codes.
        left: bits a byte costs under the decoder's probabilities.
    """
    if not spec.codebook_sizes or not count:
        return {}
    found = {"bits_per_byte": spec.bits_per_position * positions / count}
    if entropy is not None:
        found["unigram_bits_per_byte"] = entropy * positions / count
        found["exact_bits_per_byte"] = found["unigram_bits_per_byte"] + left
    return found


class TextModality:
    """Texts beside what came back, and shares of bytes."""

    unit = "texts/s"

    def meter(self, spec: CodeSpec, device: torch.device) -> TextMeter:
        return TextMeter(spec, device)

    def glance(
        self, reconstruction: Tensor, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        inside = inside_of(x[:, 0], lengths)
        right = (reconstruction.argmax(1) == x[:, 0]) & inside
        count = inside.sum()
        return {"byte_accuracy": right.sum() / count.clamp(min=1)}, count.float()

    def line(self, values: Mapping[str, float]) -> list[str]:
        said = [f"{values['val/byte_accuracy']:.1%} of bytes, {values['val/exact_pieces']:.1%} of pieces"]
        if "val/bits_per_byte" in values:
            said.append(f"{values['val/bits_per_byte']:.2f} bits a byte")
        return [*said, f"quantizer costs {values['val/quantization_gap']:.1%} of bytes"]

    def exhibit(
        self,
        x: Tensor,
        reconstructions: Mapping[str, Tensor],
        spec: CodeSpec,
        *,
        lengths: Tensor | None = None,
        title: str = "",
    ) -> Exhibit | None:
        ends = [x.shape[2]] * len(x) if lengths is None else lengths.tolist()
        batches = {"input": x[:, 0]} | {f"reconstruction{label}": y.argmax(1) for label, y in reconstructions.items()}
        rows = {label: [as_text(row[: min(end, SHOWN)]) for row, end in zip(batch, ends, strict=True)]
                for label, batch in batches.items()}  # fmt: skip
        parts = [title] if title else []
        for i in range(len(x)):
            parts += [f"-- text {i}, {label}\n{texts[i]}" for label, texts in rows.items()]
        return Exhibit(text="\n\n".join(parts) + "\n")


def as_text(x: Tensor) -> str:
    """Bytes (n,) as text, U+FFFD where they are no UTF-8."""
    return bytes(x.tolist()).decode("utf-8", "replace")
