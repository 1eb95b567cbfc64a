"""What the multi-scale mel term costs: one STFT a scale and signal, against the four of audiocraft's.

    python -m benchmarks.mel [--batch 8] [--seconds 1] [--rounds 9]

Both compare the same six scales (windows 64 .. 2048, 64 bands, with and without logarithms), in turn, on one thread:
value and gradient. The other side restates audiocraft's `MultiScaleMelSpectrogramLoss` on torchaudio.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tables import table
from mmtok.losses import losses

RATE, WINDOWS, BANDS = 24000, (64, 128, 256, 512, 1024, 2048), 64


class FourTransforms(nn.Module):
    """Each scale has a spectrogram for the magnitudes and one for the logarithms, and each sees both signals."""

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        def spectrograms() -> nn.ModuleList:
            return nn.ModuleList(MelSpectrogram(RATE, w, hop_length=w // 4, n_mels=BANDS, power=1) for w in WINDOWS)

        self.linear, self.logarithmic = spectrograms(), spectrograms()

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for window, linear, logarithmic in zip(WINDOWS, self.linear, self.logarithmic, strict=True):
            logs = [(1e-5 + logarithmic(signal)).log10() for signal in (y, x)]
            total = total + F.l1_loss(linear(y), linear(x)) + window**0.5 * F.mse_loss(*logs)
        return total


def seconds(term: Callable[[Tensor, Tensor], Tensor], y: Tensor, x: Tensor) -> float:
    """Of one value with its gradient."""
    began = time.perf_counter()
    torch.autograd.grad(term(y, x), y)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "At least one mel filterbank")
    x = 0.1 * torch.randn(args.batch, 1, round(args.seconds * RATE))
    y = (x + 0.01 * torch.randn_like(x)).requires_grad_()
    ours = losses.build(
        "mel", sample_rate=RATE, windows=WINDOWS, bands=BANDS, scale="htk", linear=1, log=0, log_norm=1, rising=True
    )
    sides = {"mmtok, 2 STFTs a scale": ours, "audiocraft's way, 4": FourTransforms()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(args.rounds + 1):
        for name, term in sides.items():
            taken = seconds(term, y, x)
            if round_:  # the first warms up
                times[name].append(taken)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    best = middle["mmtok, 2 STFTs a scale"]
    print(f"{args.batch} x {args.seconds:g} s at {RATE} Hz, value and gradient, 1 thread, median of {args.rounds}\n")
    print(table(["term", "ms", "ratio"], [[n, f"{1000 * t:.0f}", f"{t / best:.2f}"] for n, t in middle.items()]))


if __name__ == "__main__":
    main()
