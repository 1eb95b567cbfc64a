"""Tokenizers of others: what does not fit is refused by name, and what is odd is noted."""

import pytest
import torch

from mmtok.compare.adapters import Adapted
from mmtok.evaluation.evaluate import evaluate
from mmtok.schema import ConfigError


class Mean:
    """Each field of 8 x 8 pixels by its mean."""

    modality, codebook_sizes, downsample = "image", (256,), 8

    def encode(self, x):
        fields = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8)
        return ((fields + 1) * 127.5).round().long()

    def decode(self, ids):
        y = ids.float().div(127.5).sub(1)
        return y.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1)


class OfNothing(Mean):
    def decode(self, ids):
        return super().decode(ids) / (0 * ids.sum()) - torch.inf


class OfFloats(Mean):
    def encode(self, x):
        return super().encode(x).float()


class Broken(Mean):
    def encode(self, x):
        raise RuntimeError("boom")


class Other(Mean):
    downsample = 16


@pytest.fixture
def pictures():
    return [{"x": torch.randint(256, (3, 3, 16, 24), dtype=torch.uint8)}]


def measured(outside, pictures):
    tokenizer = Adapted(outside, "theirs:make")
    return tokenizer, evaluate(tokenizer, pictures, features="none", lpips="none")


def test_an_adapter_that_fits_is_measured_without_a_word(pictures):
    tokenizer, report = measured(Mean(), pictures)
    assert tokenizer.notes == []
    assert report.metrics["psnr"] > 5


@pytest.mark.parametrize(
    ("outside", "said"),
    [
        (OfNothing(), "theirs:make: decode gave values that are not finite"),
        (OfFloats(), r"theirs:make: encode gave ids of torch.float32; wanted whole numbers"),
        (Broken(), r"theirs:make: encode raised RuntimeError: boom \(.*test_adapters\.py, line \d+\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_its_name(outside, said, pictures):
    with pytest.raises(ValueError, match=said):
        measured(outside, pictures)


def test_a_grid_that_is_not_the_one_it_says_is_noted_once(pictures):
    tokenizer, _ = measured(Other(), pictures * 2)
    (note,) = tokenizer.notes
    assert note.startswith("theirs:make gave 2 x 3 positions for 16 x 24, and downsample=16 says 2")


def test_codebooks_that_float32_cannot_hold_are_refused():
    class Large(Mean):
        codebook_sizes = (1 << 25,)

    with pytest.raises(ConfigError, match="more than the 2\\^24"):
        Adapted(Large(), "theirs:make")
