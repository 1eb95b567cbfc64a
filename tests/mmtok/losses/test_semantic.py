"""Distillation of the first level: from what, of which frames, and what it says when something is missing."""

import pytest
import torch
import torch.nn.functional as F

from mmtok.codes import CodeSpec
from mmtok.config import load_config
from mmtok.losses import losses
from mmtok.losses.base import Outcome
from mmtok.losses.semantic import DistillConfig
from mmtok.quantizers import build_quantizer, quantizer_names
from mmtok.schema import ConfigError
from mmtok.training.module import TokenizerModule

SPEC = CodeSpec("audio", (64, 64), downsample=320, sample_rate=16000)


def build(spec=SPEC, **fields):
    torch.manual_seed(0)
    return losses.build(DistillConfig(**{"features": 6, "rate": 100.0, **fields}).filled(spec, 4))


def outcome(samples=3200, frames=10, teacher_frames=20, **fields):
    draws = torch.Generator().manual_seed(0)
    x, first = torch.zeros(2, 1, samples), torch.randn(2, frames, 4, generator=draws)
    teacher = torch.randn(2, 6, teacher_frames, generator=draws)
    return Outcome(x, x, **{"first": first, "batch": {"teacher": teacher}, **fields})


def test_the_teacher_is_averaged_over_each_latent():  # 100 frames a second against 50
    term, given = build(), outcome()
    pooled = F.avg_pool1d(given.batch["teacher"], 2)
    want = 1 - F.cosine_similarity(term.head(given.first), pooled.mT, dim=-1)
    torch.testing.assert_close(term.measure(given), want.mean())


def test_a_span_of_two_is_the_pooling_of_mimi():  # kernel of twice the stride, to both sides
    term, given = build(span=2.0), outcome()
    found = term._teacher(given)
    want = F.avg_pool1d(given.batch["teacher"], 4, stride=2, padding=1, count_include_pad=False)
    torch.testing.assert_close(found, want)
    late = given.batch["teacher"].clone()
    late[:, :, 2] += 1  # just after the first latent
    moved = term._teacher(outcome(batch={"teacher": late}))[:, :, 0] - found[:, :, 0]
    torch.testing.assert_close(moved, torch.full_like(moved, 1 / 3))


@pytest.mark.parametrize(("rate", "samples", "frames", "teacher_frames"), [(25.0, 3200, 10, 5), (80.0, 3000, 10, 15)])
def test_any_rate_is_aligned_in_time(rate, samples, frames, teacher_frames):  # audio.md trap 35
    """A teacher that says when it is, is understood to within half of its own frame."""
    term = build(rate=rate)
    times = (torch.arange(teacher_frames) + 0.5) / rate
    given = outcome(samples, frames, teacher_frames, batch={"teacher": times.expand(2, 6, -1)})
    want = (torch.arange(frames) + 0.5) * 0.02
    want[-1] = min(want[-1], (samples / 16000 + 0.02 * (frames - 1)) / 2)  # of a last one cut short, what there is
    assert (term._teacher(given)[0, 0] - want).abs().max() <= 0.5 / rate + 1e-6


def test_padding_does_not_count():
    positions = torch.arange(10) < torch.tensor([[10], [4]])
    for distance in ("frame", "channel"):
        term, given = build(distance=distance), outcome(positions=torch.ones(2, 10, dtype=torch.bool))
        whole = term.measure(given)
        torch.testing.assert_close(whole, term.measure(outcome()))
        dirty = given.first.where(positions[..., None], torch.nan)
        cut = term.measure(outcome(first=dirty, positions=positions))
        assert torch.isfinite(cut)
        assert cut != whole
    alone = [
        build().measure(outcome(320 * n, n, 2 * n, first=given.first[i : i + 1, :n],
                                batch={"teacher": given.batch["teacher"][i : i + 1, :, : 2 * n]}))
        for i, n in enumerate((10, 4))
    ]  # fmt: skip
    both = build().measure(outcome(first=dirty, positions=positions))
    torch.testing.assert_close(both, (10 * alone[0] + 4 * alone[1]) / 14)


@pytest.mark.parametrize("fields", [{"distance": "l2"}, {"distance": "channel"}, {"distance": "l2", "pool": True}])
def test_what_stands_behind_an_end_is_no_part_of_a_wide_average(fields):
    term, given = build(span=2.0, **fields), outcome()
    teacher = given.batch["teacher"][1:, :, :8]
    alone = outcome(320 * 4, 4, 8, first=given.first[1:, :4], batch={"teacher": teacher})
    padded = Outcome(
        given.x[1:], given.x[1:], (torch.arange(3200) < 320 * 4)[None, None], given.first[1:],
        (torch.arange(10) < 4)[None], {"teacher": F.pad(teacher, (0, 12))},
    )  # fmt: skip
    torch.testing.assert_close(term.measure(padded), term.measure(alone))


def test_the_distance_per_channel_is_that_of_speechtokenizer():
    term, given = build(distance="channel"), outcome()
    pooled = F.avg_pool1d(given.batch["teacher"], 2)
    cosine = F.cosine_similarity(term.head(given.first).mT, pooled, dim=2)
    torch.testing.assert_close(term.measure(given), -cosine.sigmoid().log().mean())


@pytest.mark.parametrize("distance", ["frame", "channel"])
def test_a_silent_teacher_gives_no_nan(distance):  # reported of SpeechTokenizer's: JEN-1#6
    term = build(distance=distance)
    first = torch.zeros(2, 10, 4, requires_grad=True)
    value = term.measure(outcome(first=first, batch={"teacher": torch.zeros(2, 6, 20)}))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(first.grad).all()
    assert all(parameter.grad.isfinite().all() for parameter in term.parameters())


@pytest.mark.parametrize("name", ["rq", "split"])
def test_the_first_level_and_the_head_learn_and_the_others_do_not(name):
    torch.manual_seed(0)
    quantizer, term = build_quantizer(name, dim=4), build()
    z = torch.randn(2, 10, 4, requires_grad=True)
    optimizer = torch.optim.Adam([z, *term.parameters(), *quantizer.parameters()], 0.02)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = term.measure(outcome(first=quantizer(z).first))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
    assert not [key for key, p in quantizer.named_parameters() if key.startswith("project_in.1") and p.grad is not None]


@pytest.mark.parametrize("distance", ["frame", "channel"])
def test_no_items_cost_nothing(distance):
    given = outcome()
    none = Outcome(given.x[:0], given.x[:0], None, given.first[:0], torch.ones(0, 10, dtype=torch.bool),
                   {"teacher": given.batch["teacher"][:0]})  # fmt: skip
    assert build(distance=distance).measure(none) == 0


@pytest.mark.parametrize("name", quantizer_names())
def test_a_quantizer_says_whether_it_has_a_first_level(name):
    quantizer = build_quantizer(name, dim=8)
    # The grid is for those that code pictures.
    assert quantizer.has_first == (quantizer(torch.randn(2, 6, 8), grid=(2, 3)).first is not None)


PICTURE = CodeSpec("image", (16,), downsample=4)


def picture(teacher, grid=(4, 4), **fields):
    x = torch.zeros(2, 3, 16, 16)
    values = torch.randn(2, grid[0] * grid[1], 4, generator=torch.Generator().manual_seed(0))
    return Outcome(x, x, values=values, grid=grid, batch={"teacher": teacher}, **fields)


def test_each_place_of_a_picture_learns_what_the_teacher_saw_there():
    term = build(PICTURE, levels="all")
    teacher = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    given = picture(teacher)
    want = F.avg_pool2d(teacher, 2).flatten(2)
    torch.testing.assert_close(
        term.measure(given), (1 - F.cosine_similarity(term.head(given.values).mT, want, dim=1)).mean()
    )
    with pytest.raises(ConfigError, match=r"\(6,\) of a picture.*Use loss.NAME.pool=true"):
        term.measure(picture(teacher.mean((2, 3))))


@pytest.mark.parametrize("distance", ["frame", "l2"])
def test_the_mean_of_a_picture_learns_one_vector(distance):
    term = build(PICTURE, levels="all", pool=True, distance=distance)
    teacher = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = term.measure(picture(teacher))
    torch.testing.assert_close(whole, term.measure(picture(teacher.mean((2, 3)))))
    student, wanted = term.head(picture(teacher).values.mean(1)), teacher.mean((2, 3))
    costs = (student - wanted).square() if distance == "l2" else 1 - F.cosine_similarity(student, wanted)
    torch.testing.assert_close(whole, costs.mean())
    # Tokens that were dropped do not count.
    kept = torch.arange(16) < torch.tensor([[16], [5]])
    dirty = picture(teacher, positions=kept)
    dirty.values[1, 5:] = torch.nan
    cut = term.head(torch.stack([picture(teacher).values[0].mean(0), picture(teacher).values[1, :5].mean(0)]))
    costs = (cut - wanted).square() if distance == "l2" else 1 - F.cosine_similarity(cut, wanted)
    torch.testing.assert_close(term.measure(dirty), costs.mean())


def test_the_mean_of_a_sound_counts_no_padding():
    positions = torch.arange(10) < torch.tensor([[10], [4]])
    term, given = build(pool=True), outcome(positions=positions)
    later = given.batch["teacher"].clone()
    later[1, :, 8:] = 7.0  # of the padding, two frames of the teacher a latent
    torch.testing.assert_close(
        term.measure(given), term.measure(outcome(positions=positions, batch={"teacher": later}))
    )


def test_levels_that_are_equals_are_refused_when_a_run_is_built():
    config = load_config(["audio/speech_split"], ["quantizer.name=product", "adversary=null"]).config
    with pytest.raises(ConfigError, match=r"The 2 levels of this one are equals"):
        TokenizerModule(config)


def test_what_is_missing_is_named():
    with pytest.raises(
        ConfigError, match=r"first of several levels: use quantizer.name=split, rq or residual, or levels=all. This one"
    ):
        build(CodeSpec("audio", (1024,), 320, sample_rate=16000))
    with pytest.raises(ConfigError, match="A teacher of 'vector' tells of whole items"):
        build(CodeSpec("vector", (8, 8)))
    with pytest.raises(ConfigError, match=r"in a row have no place in the picture. Use loss.NAME.pool=true"):
        build(CodeSpec("image", (8, 8), positions=4))
    with pytest.raises(ConfigError, match=r"first of several levels.*The 2 levels of this one are equals"):
        DistillConfig(features=6).filled(SPEC, 4, has_first=False)
    with pytest.raises(ConfigError, match=r"no teacher in the batches. Set data.teacher"):
        build().measure(outcome(batch={}))
    with pytest.raises(ConfigError, match=r"features are \(6, 20\), and loss.NAME.features=13"):
        build(features=13).measure(outcome())
    with pytest.raises(ConfigError, match=r"\(6, 20\) of 3200 samples, and should be \(6, 10\)"):
        build(rate=50.0).measure(outcome())
    with pytest.raises(ConfigError, match=r"features is required by 'distill'"):
        losses.build("distill")
    with pytest.raises(ValueError, match="features and span must be at least 1"):
        DistillConfig(features=6, span=0.5)
