"""What is drawn for people."""

import numpy as np
import pytest
import torch

from mmtok.evaluation.pictures import reconstruction_sheet, usage_picture, usage_title


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_holds_each_picture_as_it_is(channels):
    x = torch.randint(0, 256, (3, channels, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(reconstruction_sheet(x, x.flip(0), captions=["a", "b", "c"], title="three", tile=64))
    for batch in (x, x.flip(0)):
        for picture in batch:
            want = picture.expand(3, -1, -1).movedim(0, -1).numpy()
            windows = np.lib.stride_tricks.sliding_window_view(sheet[:, :, 0], (64, 64))
            assert (windows[:, :, 0, :] == want[0, :, 0]).all(-1).any()


def test_small_pictures_are_enlarged_by_whole_factors():
    x = torch.full((1, 3, 32, 32), 7, dtype=torch.uint8)
    sheet = np.asarray(reconstruction_sheet(x, x, tile=100))
    assert (sheet == 7).all(-1).sum() == 2 * 128 * 128


def test_no_difference_is_black():
    x = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    sheet = np.asarray(reconstruction_sheet(x, x, tile=32))
    assert (sheet == 0).all(-1).sum() >= 32 * 32


def test_the_title_of_usage_tells_the_state():
    counts = torch.full((64,), 100)
    assert usage_title(counts).startswith("codes: healthy  |  64 of 64 in use  |  perplexity 64")
    counts[3:] = 0
    assert usage_title(counts, 2).startswith("level 2: n/a")
    assert "collapsed" in usage_title(counts * 100)


@pytest.mark.parametrize("sizes", [(4,), (1024, 16), (50_000,), ()])
def test_every_codebook_has_a_panel(sizes):
    picture = usage_picture([torch.arange(size) for size in sizes])
    assert picture.height == 194 * max(len(sizes), 1)


def test_a_codebook_never_used_can_be_drawn():
    assert usage_picture([torch.zeros(16)]).width > 600
