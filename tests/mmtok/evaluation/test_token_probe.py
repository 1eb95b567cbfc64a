"""A linear probe of clips' codes: it reads what is there, nothing where nothing is, and never a voice it has heard."""

import pytest
import torch

from mmtok.evaluation.probe import histograms
from mmtok.evaluation.token_probe import (
    FOLDS,
    ClipFeatures,
    accuracy,
    clip_features,
    probe_clips,
    split,
    standardised,
    targets_of,
)
from mmtok.tokenizers import build_tokenizer

PATTERN = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+"
SPEAKERS = ("ann", "bob", "cyd")


def clips(takes=6):
    """Keys, and ids of one level: a digit has two codes of its own, a speaker one."""
    keys, ids = [], []
    generator = torch.Generator().manual_seed(0)
    for digit in range(4):
        for number, speaker in enumerate(SPEAKERS):
            for take in range(takes):
                keys.append(f"{digit}_{speaker}_{take}")
                noise = torch.randint(0, 2, (20,), generator=generator)
                ids.append(torch.cat([2 * digit + noise, torch.full((5,), 8 + number)]))
    return tuple(keys), torch.stack(ids)[:, None]


@pytest.fixture
def features():
    keys, ids = clips()
    values = torch.randn(len(keys), 6, generator=torch.Generator().manual_seed(1))
    return ClipFeatures(histograms(ids), values, keys, (-1,) * len(keys))


def test_what_the_codes_hold_is_read_and_noise_is_not(features):
    found = probe_clips(features, targets_of(features, PATTERN))
    assert found["digit"].tokens == 1
    assert found["speaker"].tokens == 1
    assert found["digit"].values < 0.5
    assert (found["digit"].chance, found["digit"].classes, found["digit"].samples) == (0.25, 4, 72)


def test_the_same_clips_give_the_same_accuracy(features):
    once, again = (probe_clips(features, targets_of(features, PATTERN)) for _ in range(2))
    assert once == again


def test_no_speaker_is_in_two_folds_but_where_it_is_predicted():
    keys, _ = clips()
    speakers = [key.split("_")[1] for key in keys]
    folds = split([key[0] for key in keys], speakers)
    assert all(len({int(f) for f, s in zip(folds, speakers, strict=True) if s == name}) == 1 for name in SPEAKERS)
    own = split(speakers)
    assert all(len({int(f) for f, s in zip(own, speakers, strict=True) if s == name}) == FOLDS for name in SPEAKERS)


def test_a_label_that_is_the_voice_alone_is_not_learned_from_other_voices():
    """Each speaker says digits with codes of their own: what one voice teaches says nothing of the next."""
    speakers = ["ann", "bob"] * 20
    digits = [str(i // 2 % 2) for i in range(40)]
    x = torch.zeros(40, 4)
    for i in range(40):
        x[i, 2 * (i % 2) + int(digits[i])] = 1
    y = torch.tensor([int(digit) for digit in digits])
    assert accuracy(x, y, split(digits)) == 1
    assert accuracy(x, y, split(digits, speakers)) <= 0.5


def test_labels_of_the_set_are_taken_where_keys_say_nothing(features):
    labelled = ClipFeatures(features.tokens, features.values, ("clip",) * 72, tuple(range(4)) * 18)
    assert {*targets_of(labelled, PATTERN)} == {"label"}
    with pytest.raises(ValueError, match="--probe-keys"):
        targets_of(ClipFeatures(None, features.values, ("clip",) * 72, (-1,) * 72), PATTERN)


def test_features_are_those_of_each_clip_alone_and_in_order():
    torch.manual_seed(0)
    encoder = {"name": "seanet", "channels": 4, "strides": [4, 5]}
    tokenizer = build_tokenizer(
        {"name": "audio", "sample_rate": 8000, "dim": 8, "encoder": encoder},
        {"name": "rq", "codebook_size": 16, "depth": 2},
    )
    x = torch.rand(5, 1, 400) - 0.5
    lengths = torch.tensor([400, 120, 400, 0, 200])
    batch = {"x": x, "lengths": lengths, "key": list("abcde"), "label": torch.arange(5)}
    found = clip_features(tokenizer, [batch], max_samples=5)
    assert (found.keys, found.labels) == (("a", "b", "c", "e"), (0, 1, 2, 4))  # a clip of no samples has no codes
    alone = clip_features(tokenizer, [{"x": x[1:2, :, :120], "key": ["b"]}])
    torch.testing.assert_close(found.values[1:2], alone.values)
    assert alone.labels == (-1,)
    with pytest.raises(ValueError, match="no clip"):
        clip_features(tokenizer, [])


def test_a_constant_feature_is_no_infinity():
    assert standardised(torch.ones(3, 2)).abs().sum() == 0
