import json
import re

import pytest
import torch

from mmtok.report.galleries import PATCHES, Patches
from mmtok.report.html import Html, script_data, tag
from mmtok.report.log import Log
from mmtok.report.looking import principal_colours
from mmtok.report.media import Media
from mmtok.report.numbers import number, spread, thin
from mmtok.report.sections.usage import shares_by_rank


def test_text_and_attributes_are_escaped_and_markup_is_not():
    made = tag("a", "<i>", Html("<b>x</b>"), title='"&', data_sort=1, hidden=True, id=None)
    assert made == '<a title="&quot;&amp;" data-sort="1" hidden>&lt;i&gt;<b>x</b></a>'


def test_data_cannot_end_its_element():
    plain = {"a": "</script><!-- \u2028 &"}
    written = script_data("d", plain)
    inside = re.fullmatch(r"<script[^>]*>(.*)</script>", written)[1]
    assert not re.search("[<>&\u2028]", inside)
    assert json.loads(inside) == plain


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"), (25.894, "25.89"), (0.04018, "0.04018"), (1024, "1,024"), (122585088.0, "123 M"), (3.2e-6, "3.20e-6"),
        (64.0, "64"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits(value, written):
    assert number(value) == written


def test_a_mean_ends_where_its_interval_does():
    assert spread(25.0512, 0.123) == ("25.05", "0.12")
    assert spread(1234.5, 87.0) == ("1,234", "87")
    assert spread(64.0, 0.0) == ("64", "")
    assert spread(64.0, None) == ("64", "")


def test_a_thinned_curve_keeps_its_ends_and_its_spike():
    curve = [(i, 0.1 * (i % 2)) for i in range(5000)]
    curve[1234] = (1234, 99.0)
    kept = thin(curve, 100)
    assert len(kept) <= 100
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert (1234, 99.0) in kept
    assert kept == sorted(kept)


def test_alarms_are_spans_of_the_log(sound_run):
    assert Log.read(sound_run / "metrics.csv").spans("alarm/collapse") == [(100, 200)]


def test_a_log_that_is_cut_in_a_row_is_damaged_and_says_where(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n10,0.5\n20,0.\n3x,1\n")
    with pytest.raises(ValueError, match=r"damaged, line 4"):
        Log.read(path)
    path.write_bytes(b"step,loss\n10,0.5\n20,0.\xff4\n30,1\n")
    with pytest.raises(ValueError, match=r"damaged, line 3: .*0xff"):
        Log.read(path)


def test_media_are_there_once_and_stop_at_their_limit():
    media = Media(limit=3000)
    first = media.add("image/png", b"a" * 1500)
    assert media.add("image/png", b"a" * 1500) == first
    assert media.add("image/png", b"b" * 1500) == ""
    assert media.full
    assert media.size < 3000


def test_shares_are_in_units_of_an_even_one():
    assert shares_by_rank([0, 30, 10, 0]) == [[25.0, 3.0], [50.0, 1.0]]
    assert shares_by_rank([0, 0]) == []


def test_a_gallery_shows_the_squares_that_chose_the_code(pictures):
    """Code 1 is chosen by the square in row 0, column 1 alone, in every picture; its nearest first."""
    patches = Patches(8)
    ids = torch.tensor([[0, 1, 0, 0]]).repeat(len(pictures), 1)
    latents = torch.zeros(len(pictures), 4, 2)
    latents[:, 1, 0] = torch.arange(len(pictures)).flip(0)  # the last picture's is nearest
    patches.add(pictures, ids, latents, torch.zeros_like(latents), (2, 2))
    patches.add(pictures, ids, latents, torch.zeros_like(latents), (2, 2))
    commonest, other = patches.chosen()
    assert (commonest.code, commonest.count, other.code, other.count) == (0, 36, 1, 12)
    assert other.strip.shape == (3, 24, 24 * PATCHES)
    torch.testing.assert_close(other.strip[:, 8:16, 8:16], pictures[-1][:, :8, 8:16])


def test_similar_values_have_similar_colours():
    values = torch.tensor([[0.0, 0, 0, 0], [0.01, 0, 0, 0], [9, 3, 1, 0], [0, 5, 2, 2]])
    colours = principal_colours(values).int()
    assert (colours[0] - colours[1]).abs().max() <= 3
    assert (colours[0] - colours[2]).abs().max() > 50
    assert principal_colours(torch.randn(5, 2)).shape == (5, 3)  # fewer channels than a colour has
