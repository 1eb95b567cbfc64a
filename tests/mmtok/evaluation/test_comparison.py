"""What is measured between pictures and their stand-ins, and what a missing weight changes."""

import pytest
import torch

from mmtok.evaluation import comparison
from mmtok.evaluation.comparison import Comparison, Examples, batches_of, build_instruments
from mmtok.losses import losses
from mmtok.tokenizers.pixels import to_unit

pytestmark = pytest.mark.filterwarnings("ignore:A Frechet distance")


def draw(count, side=40, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)
    return x, (x // 2 + 60)


@pytest.fixture
def here(alexnet, monkeypatch, tmp_path):
    monkeypatch.setenv("MMTOK_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(alexnet.parents[2]))


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_the_mean_over_pictures_of_what_a_user_sees(here, monkeypatch, channels):
    monkeypatch.setattr(comparison, "AT_ONCE", 2)
    x, y = draw(5, channels=channels)
    measured = Comparison(build_instruments("none", "auto", "cpu"))
    with torch.inference_mode():
        measured.update(x[:3], y[:3])
        measured.update(x[3:], y[3:])
    want = losses.build({"name": "lpips", "net": "alex"})(to_unit(y), to_unit(x))
    assert measured.metrics()["LPIPS-alex"] == pytest.approx(float(want), rel=1e-4)
    assert measured.choices()["lpips"]["net"] == "alex"
    assert measured.choices()["lpips"]["samples"] == 5


def test_too_small_pictures_have_no_lpips_and_the_file_says_so(here):
    measured = Comparison(build_instruments("none", "alex", "cpu"))
    measured.update(*draw(2, side=24))
    assert not any(name.startswith("LPIPS") for name in measured.metrics())
    assert "too small" in measured.choices()["lpips"]["absent"]


def test_without_weights_it_is_left_out_unless_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("MMTOK_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    instruments = build_instruments("none", "auto", "cpu")
    assert instruments.lpips is None
    assert "mmtok doctor --fetch lpips" in Comparison(instruments).choices()["lpips"]["absent"]
    with pytest.raises(ValueError, match="found no backbone weights"):
        build_instruments("none", "vgg", "cpu")
    with pytest.raises(ValueError, match="no LPIPS 'squeeze'"):
        build_instruments("none", "squeeze", "cpu")


def test_features_of_the_inputs_are_computed_once_for_many_stand_ins():
    instruments = build_instruments("dct", "none", "cpu")
    x, y = draw(6)
    first = Comparison(instruments)
    first.update(x, y)
    again = Comparison(instruments, first.reference)
    again.update(x[:4], y[:4])
    again.update(x[4:], y[4:])
    assert again.metrics() == pytest.approx(first.metrics(), rel=1e-4, abs=1e-6)
    assert first.reference.sums.count == 6
    assert {"FD-DCT", "KID-DCT", "KID-DCT_std"} <= {*first.metrics()}
    assert first.choices()["kid"].items() >= {"subsets": 100, "subset_size": 3, "samples": 6, "seed": 0}.items()


@pytest.mark.parametrize(("count", "names"), [(1, set()), (2, {"FD-DCT"})])
def test_one_picture_has_no_distance_between_sets(count, names):
    measured = Comparison(build_instruments("dct", "none", "cpu"))
    measured.update(*draw(count))
    assert {name for name in measured.metrics() if name.startswith(("FD", "KID"))} == names


def test_only_the_first_features_are_kept_for_the_kernel_distance(monkeypatch):
    monkeypatch.setattr(comparison, "KEPT", 5)
    measured = Comparison(build_instruments("dct", "none", "cpu"))
    for part in range(3):
        measured.update(*draw(3, seed=part))
    assert len(measured.reference.kept) == 5
    assert measured.choices()["kid"]["samples"] == 5


def test_examples_of_different_sizes_share_a_sheet():
    examples = Examples(3, 2)
    examples.add(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 3, 8, 8, dtype=torch.uint8))
    examples.add(torch.zeros(2, 3, 4, 12, dtype=torch.uint8), torch.zeros(2, 3, 4, 12, dtype=torch.uint8))
    x, y = examples.stacked()
    assert x.shape == y.shape == (3, 3, 8, 12)
    assert (x[:2, ..., 8:] == 255).all()
    assert (x[2, :, 4:] == 255).all()
    assert (x[2, :, :4] == 0).all()
    assert Examples(3, 1).stacked() is None


def test_batches_end_where_asked():
    loader = [{"x": torch.zeros(4, 1)}, {"x": torch.zeros(4, 1)}, {"x": torch.zeros(4, 1)}]
    assert [len(x) for x in batches_of(loader, 6)] == [4, 2]
    assert [len(x) for x in batches_of(loader, None)] == [4, 4, 4]
