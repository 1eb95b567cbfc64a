"""Fidelity of pictures, on what a user sees: 8-bit values, clamped and rounded. Sums, so that ranks add up.

Definitions that change a number are in `DEFINITIONS` and go into every report.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

PSNR_CAP = 100.0
"""dB given to an identical picture, whose error is 0. One step in one value of a 4096^2 picture is 117 dB."""
WINDOW, SIGMA = 11, 1.5

DEFINITIONS = {
    "rounding": "clamped to [-1, 1], mapped to 0..255 and rounded to the nearest, input and reconstruction alike",
    "psnr": f"mean over pictures of 10 log10(255^2 / MSE over all channels), at most {PSNR_CAP:g} dB a picture",
    "ssim": (
        "mean over pictures, of the mean over channels and over the positions whose window lies inside; Gaussian "
        f"window {WINDOW}x{WINDOW}, sigma {SIGMA}, population covariance, K1 0.01, K2 0.03, range 255"
    ),
    "high_frequency_ratio": (
        "energy of the reconstructions over that of the inputs at spatial frequencies above a quarter cycle a pixel "
        "(half of Nyquist), Hann-windowed, all channels; below 1 is blur, above 1 is noise or ringing"
    ),
    "mae": "mean absolute difference of 8-bit values over all pictures",
}


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """uint8 pictures (B, C, H, W) -> dB of each (B,)."""
    error = (x.double() - y.double()).square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / error)).clamp(max=PSNR_CAP)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """uint8 pictures (B, C, H, W) -> structural similarity of each (B,); NaN where the window does not fit.

    Wang et al. 2004, as scikit-image computes it with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=255, channel_axis=...`.
    """
    batch, _, height, width = x.shape
    if min(height, width) < WINDOW:
        return x.new_full((batch,), torch.nan, dtype=torch.float64)
    # float64 throughout: variances are small differences of large squares, and neither autocast nor TF32 touches it.
    a, b = x.double(), y.double()
    mean_a, mean_b, square_a, square_b, product = (_blur(maps) for maps in (a, b, a * a, b * b, a * b))
    var_a, var_b, cov = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return similarity.flatten(1).mean(1)  # all channels have as many positions


def _blur(maps: Tensor) -> Tensor:
    """(B, C, H, W) under the Gaussian window, only where it lies inside: two banded products."""
    rows, columns = (_band(side).to(maps.device) for side in maps.shape[2:])
    return rows.T @ maps @ columns


@cache
def _band(side: int) -> Tensor:
    """(side, side - WINDOW + 1), the window at each of its places."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    band = torch.zeros(side, side - WINDOW + 1, dtype=torch.float64)
    for i, weight in enumerate(window / window.sum()):
        band.diagonal(-i).fill_(weight)
    return band


def high_frequency_energy(x: Tensor) -> Tensor:
    """uint8 pictures (B, C, H, W) -> energy above half of the Nyquist frequency, of each (B,)."""
    height, width = x.shape[2:]
    picture = x.double() - x.double().mean((2, 3), keepdim=True)
    spectrum = torch.fft.rfft2(picture * _hann(height, width).to(x.device), norm="ortho")
    rows = torch.fft.fftfreq(height, device=x.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=x.device)[None]
    high = rows.square() + columns.square() > 0.25**2
    # All columns but the first (and the last of an even width) stand for two, their mirror images included.
    twice = torch.where((columns == 0) | (columns == 0.5), 1.0, 2.0)
    return (spectrum.abs().square() * high * twice).flatten(1).sum(1)


@cache
def _hann(height: int, width: int) -> Tensor:
    """A picture is no tile: without a window, the step between its opposite edges is what is measured."""
    rows, columns = (torch.hann_window(side + 2, False, dtype=torch.float64)[1:-1] for side in (height, width))
    return rows[:, None] * columns[None]


class PictureMetrics:
    """Sums over pictures of what `DEFINITIONS` says.

    Attributes:
        sums: float64 (len(FIELDS),) on the device of the pictures; add those of other ranks before `result`.
    """

    FIELDS = ("count", "psnr", "ssim", "ssim_count", "high_x", "high_y", "absolute", "values", "pixels")

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(len(self.FIELDS), dtype=torch.float64, device=device)

    def update(self, x: Tensor, y: Tensor) -> None:
        """Inputs and reconstructions, uint8 (B, C, H, W)."""
        assert x.dtype == y.dtype == torch.uint8, (x.dtype, y.dtype)
        assert x.shape == y.shape, (x.shape, y.shape)
        if not len(x):  # a rank whose last batch is all padding; a Fourier transform of nothing is an error
            return
        similarity = ssim(x, y)
        known = ~similarity.isnan()
        terms: Iterable[Tensor | float] = (
            len(x),
            psnr(x, y).sum(),
            similarity.nan_to_num().sum(),
            known.sum(),
            high_frequency_energy(x).sum(),
            high_frequency_energy(y).sum(),
            (x.double() - y.double()).abs().sum(),
            x.numel(),
            x.numel() // x.shape[1],
        )
        self.sums += torch.stack([torch.as_tensor(term, dtype=torch.float64).to(self.sums.device) for term in terms])

    def result(self) -> dict[str, float]:
        """The measures by name; NaN where no picture allowed one."""
        s = dict(zip(self.FIELDS, self.sums.tolist(), strict=True))
        return {
            "psnr": _ratio(s["psnr"], s["count"]),
            "ssim": _ratio(s["ssim"], s["ssim_count"]),
            "mae": _ratio(s["absolute"], s["values"]),
            "high_frequency_ratio": _ratio(s["high_y"], s["high_x"]),
        }


def _ratio(total: float, count: float) -> float:
    return total / count if count else float("nan")
