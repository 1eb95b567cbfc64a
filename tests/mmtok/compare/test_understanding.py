"""Readers of labels: they find what is there, and nothing where there is nothing."""

from dataclasses import replace

import pytest
import torch

from mmtok.compare import understanding
from mmtok.compare.tokens import Tokens, labels_by
from mmtok.compare.understanding import ReaderConfig, known_labels, raw_understanding, understand

SMALL = ReaderConfig(width=32, depth=1, heads=2, steps=120, batch=32, lr=3e-3)


def tokens(count, seed, told=True, levels=2):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    ids = torch.randint(30, (count, levels, 9), generator=generator)
    values = torch.randn(count, 5, generator=generator)
    if told:
        ids[:, 0, 4] = labels  # one position of one level says it
        values[:, 2] += 6 * labels
    return Tokens(ids, values, labels, tuple(map(str, range(count))), 1.0)


def test_codes_and_values_that_tell_the_label_are_read():
    found = understand(tokens(600, 0), tokens(200, 1), (30, 30), SMALL)
    assert found.linear > 0.9
    assert found.neighbours > 0.9
    assert found.transformer > 0.9
    assert found.chance < 0.45
    assert (found.classes, found.samples) == (3, 200)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_any_number_of_steps_is_done(steps):
    few = replace(SMALL, steps=steps, width=8, batch=4)
    assert 0 <= understand(tokens(12, 0), tokens(6, 1), (30, 30), few).transformer <= 1


def test_codes_that_tell_nothing_are_read_at_chance():
    found = understand(tokens(600, 0, told=False), tokens(400, 1, told=False), (30, 30), SMALL)
    assert abs(found.linear - 1 / 3) < 0.12
    assert abs(found.neighbours - 1 / 3) < 0.12
    assert abs(found.transformer - 1 / 3) < 0.12


def test_without_codes_values_alone_are_read():
    train, held_out = tokens(200, 0), tokens(100, 1)
    assert understand(train, held_out, (), SMALL).transformer is None


def test_sets_without_labels_of_two_classes_are_not_read():
    plain = tokens(20, 0)
    nothing = Tokens(plain.ids, plain.values, torch.full((20,), -1), plain.keys, 1.0)
    assert understand(nothing, plain, (30, 30), SMALL) is None
    assert known_labels(torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long)) is None


def test_classes_that_training_never_saw_take_no_part():
    (a, b), (y, target), classes = known_labels(torch.tensor([5, 7, -1, 5]), torch.tensor([7, 9, 5]))
    assert (a.tolist(), b.tolist()) == ([True, True, False, True], [True, False, True])
    assert (y.tolist(), target.tolist(), classes) == ([0, 1, 0], [1, 0], 2)


def test_the_input_is_read_once_for_all_arms_that_see_it_alike(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (200,), generator=generator)
    x = 0.1 * torch.randn(200, 1, 8, 8, generator=generator) + labels[:, None, None, None]
    batches = [{"x": x[:100]}, {"x": x[100:]}]
    found = raw_understanding(batches, batches, (labels, labels), 4, SMALL, seed=0, cache=tmp_path)
    assert found["raw_linear_accuracy"] > 0.95
    assert found["raw_transformer_accuracy"] > 0.95
    other = [{"x": torch.zeros(100, 1, 8, 8)}, {"x": torch.zeros(100, 1, 8, 8)}]
    blind = raw_understanding(other, other, (labels, labels), 4, SMALL, seed=0, cache=tmp_path)
    assert blind["raw_linear_accuracy"] < 0.8
    monkeypatch.setattr(understanding, "read", None)  # whatever trains fails
    assert raw_understanding(batches, batches, (labels, labels), 4, SMALL, seed=0, cache=tmp_path) == found


@pytest.mark.parametrize("length", [9, 16])
def test_sounds_of_any_length_are_read_in_pieces(tmp_path, length):
    labels = torch.arange(40) % 2
    x = labels[:, None, None] + torch.zeros(40, 1, 16)
    batch = {"x": x, "lengths": torch.full((40,), length)}
    found = raw_understanding([batch], [batch], (labels, labels), 4, SMALL, seed=0, cache=tmp_path)
    assert found["raw_transformer_accuracy"] > 0.95


def test_labels_come_off_keys():
    assert labels_by(["3_a_0", "5_b_1"], r"(?P<digit>\d)_(?P<who>[a-z])") == {"digit": ["3", "5"], "who": ["a", "b"]}
    assert labels_by(["3_a_0", "none"], r"(?P<digit>\d)_") == {}


def test_positions_that_no_item_of_a_batch_has_are_left_out():
    torch.manual_seed(0)
    model = understanding.Reader(understanding.CodesEmbedding((16,), 32), 12, 3, SMALL).eval()
    ids = torch.randint(16, (4, 1, 12))
    ids[:, :, 5:] = -1
    few = understanding._trimmed(ids)
    assert few.shape == (4, 1, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(few), model(ids))
    pieces = torch.zeros(4, 12, 3).index_fill(1, torch.arange(5, 12), torch.nan)
    assert understanding._trimmed(pieces).shape == (4, 5, 3)
