"""Fidelity, against scikit-image and against arithmetic."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mmtok.evaluation import metrics


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 40)[None, :, None] * np.ones((2, 31, 40, 3))
    x = (smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).round().astype(np.uint8)
    y = (x + rng.normal(0, 20, x.shape)).clip(0, 255).round().astype(np.uint8)
    return x, y


def tensor(array):
    return torch.from_numpy(array).movedim(-1, 1)


def test_psnr_is_scikit_images(pair):
    want = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(*pair, strict=True)]
    np.testing.assert_allclose(metrics.psnr(*map(tensor, pair)), want, rtol=1e-12)


def test_an_identical_picture_has_the_cap(pair):
    x = tensor(pair[0])
    assert (metrics.psnr(x, x) == metrics.PSNR_CAP).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(pair, channels):
    x, y = (array[..., :channels] for array in pair)
    want = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
        )
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(tensor(x), tensor(y)), want, atol=1e-12)


def test_autocast_changes_nothing(pair):
    x, y = map(tensor, pair)
    want = metrics.ssim(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metrics.ssim(x, y), want)


def test_a_picture_smaller_than_the_window_has_no_ssim_and_spoils_no_mean(pair):
    x, y = map(tensor, pair)
    tiny = torch.zeros(1, 3, 10, 40, dtype=torch.uint8)
    assert metrics.ssim(tiny, tiny).isnan().all()
    with_tiny, without = metrics.PictureMetrics(), metrics.PictureMetrics()
    for sums in (with_tiny, without):
        sums.update(x, y)
    with_tiny.update(tiny, tiny)
    assert with_tiny.result()["ssim"] == without.result()["ssim"]


def test_sums_of_parts_are_the_sums_of_the_whole(pair):
    x, y = map(tensor, pair)
    whole, parts = metrics.PictureMetrics(), [metrics.PictureMetrics() for _ in range(2)]
    whole.update(x, y)
    for i, part in enumerate(parts):
        part.update(x[i : i + 1], y[i : i + 1])
    parts[0].sums += parts[1].sums
    torch.testing.assert_close(parts[0].sums, whole.sums)


def waves(period):
    columns = torch.arange(64)
    wave = 128 + 100 * torch.sin(2 * torch.pi * columns / period)
    return wave.round().to(torch.uint8).expand(1, 1, 64, 64)


def test_half_of_nyquist_parts_fine_from_coarse():
    fine, coarse = waves(2.5), waves(8)
    assert metrics.high_frequency_energy(coarse) < 1e-3 * metrics.high_frequency_energy(fine)


def test_blur_lowers_and_noise_raises_the_energy(pair):
    x = tensor(pair[0])
    blurred = torch.nn.functional.avg_pool2d(x.float(), 3, 1, 1, count_include_pad=False).round().byte()
    for changed, low, high in ((blurred, 0.0, 0.5), (tensor(pair[1]), 2.0, 10.0), (x, 1.0, 1.0)):
        sums = metrics.PictureMetrics()
        sums.update(x, changed)
        assert low <= sums.result()["high_frequency_ratio"] <= high


def test_the_spectrum_keeps_all_energy():
    """Columns of a real transform stand for two, but for the first and the last of an even width."""
    for width in (8, 9):
        x = torch.randint(0, 256, (1, 1, 7, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        picture = (x.double() - x.double().mean()) * metrics._hann(7, width)
        full = torch.fft.fft2(picture, norm="ortho").abs().square()
        frequency = torch.fft.fftfreq(7)[:, None] ** 2 + torch.fft.fftfreq(width)[None] ** 2
        torch.testing.assert_close(metrics.high_frequency_energy(x), (full * (frequency > 0.25**2)).flatten(1).sum(1))


def test_nothing_measured_is_nan():
    assert all(np.isnan(value) for value in metrics.PictureMetrics().result().values())
