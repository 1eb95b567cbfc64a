import pytest
import torch

from mmtok.evaluation.probe import probe_ids


def make(n=200, levels=2, positions=16, codes=64, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return torch.randint(codes, (n, levels, positions), generator=generator), labels, generator


def test_ids_that_depend_on_the_class_are_told_apart_by_both_readings():
    ids, labels, generator = make()
    ids = torch.where(torch.rand(ids.shape, generator=generator) < 0.5, labels[:, None, None], ids)
    result = probe_ids(ids, labels)
    assert result.bag > 0.95
    assert result.match > 0.95


def test_ids_without_meaning_stay_near_chance():
    result = probe_ids(*make(n=600)[:2])
    assert result.best < result.chance + 0.08


def test_the_same_codes_in_other_places_are_found_by_the_bag_alone():
    ids, labels, generator = make(levels=1, positions=32)
    own = labels[:, None, None] * 16 + torch.randint(16, ids.shape, generator=generator)
    result = probe_ids(own, labels)
    assert result.bag == 1.0
    one_place = ids.clone()
    one_place[:, :, :4] = labels[:, None, None] + torch.arange(4) * 7  # a class is where codes stand
    assert probe_ids(one_place, labels).match > probe_ids(torch.roll(one_place, 1, 0), labels).match


def test_a_sample_is_not_its_own_neighbour():
    ids = torch.arange(40).view(40, 1, 1).expand(-1, 1, 4)
    labels = torch.arange(40) % 2
    assert probe_ids(ids, labels).match < 0.8


def test_positions_without_a_code_match_nothing():
    ids = torch.full((20, 1, 8), -1)
    ids[:10, :, 0], ids[10:, :, 0] = 1, 2
    assert probe_ids(ids, torch.arange(20) // 10, neighbours=3).match == 1.0


def test_unlabelled_samples_take_no_part_and_too_few_classes_say_nothing():
    ids, labels, _ = make(n=20)
    assert probe_ids(ids, torch.full_like(labels, -1)) is None
    assert probe_ids(ids, torch.zeros_like(labels)) is None
    labels[:5] = -1
    assert probe_ids(ids, labels).samples == 15


def test_more_distinct_codes_than_columns_share_them_by_hash():
    ids, labels, generator = make(n=300, levels=1, positions=64, codes=2**18)
    ids = torch.where(torch.rand(ids.shape, generator=generator) < 0.3, labels[:, None, None], ids)
    assert probe_ids(ids, labels).bag > 0.9


def test_chance_is_the_share_of_the_commonest_class():
    ids, _, _ = make(n=100)
    assert probe_ids(ids, (torch.arange(100) < 30).long()).chance == pytest.approx(0.7)
