from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from datamodules.order import AHEAD, MIX_WINDOW, BatchPlan, StreamOrder, slot_seed

COUNTS = [100, 37, 250, 1, 80]


def order(counts=(COUNTS,), **options):
    return StreamOrder(counts, **{"streams": 8, "shuffle": 16} | options)


@pytest.mark.parametrize("shuffle", [0, 1, 7, 16, 4096])
@pytest.mark.parametrize("streams", [1, 3, 8])
def test_an_epoch_reads_every_sample_once_up_to_the_remainder(shuffle, streams):
    stream = order(shuffle=shuffle, streams=streams)
    length = sum(COUNTS) // streams * streams
    for epoch in range(3):
        seen = Counter(stream.place(slot) for slot in range(epoch * length, (epoch + 1) * length))
        assert len(seen) == length
        assert all(sample < COUNTS[shard] for _, shard, sample in seen)


def test_epochs_and_seeds_differ():
    first, other = order(seed=1), order(seed=2)
    length = first.sets[0].length * 8
    epochs = [tuple(first.place(slot) for slot in range(e * length, (e + 1) * length)) for e in range(3)]
    assert len({*epochs, tuple(other.place(slot) for slot in range(length))}) == 4


def test_the_order_is_what_it_was():
    """A change of numpy, or of ours, that reorders the data of running experiments must not pass unseen."""
    stream = order(seed=3, shuffle=64)
    text = ",".join(f"{place.shard}:{place.sample}" for place in map(stream.place, range(1000)))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9541baeb25c5cf7d"


def test_without_shuffle_each_shard_is_read_in_its_order():
    stream = order(shuffle=0, streams=1)
    places = [stream.place(slot) for slot in range(sum(COUNTS))]
    steps = [(b.shard == a.shard and b.sample == a.sample + 1) for a, b in pairwise(places)]
    assert sum(not step for step in steps) <= len(COUNTS)


def test_neighbours_in_a_shuffled_stream_come_from_the_whole_block():
    stream = StreamOrder([[10_000]], streams=1, shuffle=1000)
    samples = np.array([stream.place(slot).sample for slot in range(1000)])
    assert abs(np.corrcoef(samples[:-1], samples[1:])[0, 1]) < 0.1


def test_what_fills_a_bad_slot_is_the_rest_of_its_block_each_once():
    stream = order(shuffle=16)
    places = list(stream.places(77))
    assert len(places) == len(set(places)) == 16
    assert places[0] == stream.place(77)


def test_seeking_far_needs_no_replay():
    stream = StreamOrder([[10_000] * 40_000], streams=8)  # 400 million samples
    assert stream.place(10**12 + 7) == StreamOrder([[10_000] * 40_000], streams=8).place(10**12 + 7)


MIXTURES = [[1, 1], [0.7, 0.2, 0.1], [3, 1], [0.01, 0.99], [8, 1, 1], [1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("weights", MIXTURES, ids=str)
@pytest.mark.parametrize("streams", [1, 3, 8])
def test_mixture_shares_hold_over_every_window_and_do_not_drift(weights, streams):
    """Between any two slots each set has its share to within a few samples, however far into the run."""
    mixed = order(counts=[[1000]] * len(weights), weights=weights, streams=streams)
    for first in (0, 10**9 + 3):
        chosen = np.array([mixed.locate(slot)[0] for slot in range(first, first + 4000)])
        for number, weight in enumerate(weights):
            share = weight / sum(weights)
            ahead = np.cumsum(chosen == number) - share * np.arange(1, 4001)
            assert np.ptp(ahead) < (3 if len(weights) == 2 else 4 * len(weights))
            assert abs(mixed.progress(first)[number] - share * first) < 2 * len(weights)


@pytest.mark.parametrize("weights", MIXTURES, ids=str)
def test_each_set_of_a_mixture_is_read_without_gaps(weights):
    """Every stream counts the slots of a set by itself: 0, 1, 2 ... of it, once each."""
    mixed = order(counts=[[1000]] * len(weights), weights=weights)
    located = [mixed.locate(slot) for slot in range(8 * 2 * MIX_WINDOW * 100)]
    for number in range(len(weights)):
        for stream in range(8):
            own = sorted(slot // 8 for chosen, slot in located if chosen == number and slot % 8 == stream)
            assert own == list(range(len(own)))


@pytest.mark.parametrize("slot", [0, 1, 7, 8, 31, 32, 33, 1000, 12_345])
def test_progress_is_what_was_read_before_a_slot(slot):
    mixed = order(counts=[[1000]] * 3, weights=[0.7, 0.2, 0.1])
    chosen = Counter(mixed.locate(before)[0] for before in range(slot))
    assert mixed.progress(slot) == [chosen[number] for number in range(3)]
    assert order().progress(slot) == [slot]


def test_a_rank_that_sees_every_other_tick_of_a_stream_sees_all_sets():
    """Twice as many ranks as streams: were a share of 1/2 every other tick, a rank would see one set alone."""
    mixed = order(counts=[[1000], [1000]], streams=2)
    of_rank = Counter(mixed.locate(slot)[0] for slot in range(3, 4000, 4))
    assert 350 < of_rank[0] < 650


def test_a_small_set_repeats_while_a_large_one_goes_on():
    mixed = order(counts=[[40], [4000]], weights=[1, 1], streams=4)
    seen = Counter(mixed.place(slot) for slot in range(1600))
    small = {place.sample: count for place, count in seen.items() if place.set == 0}
    assert len(small) == 40
    assert set(small.values()) <= {19, 20, 21}
    assert all(count == 1 for place, count in seen.items() if place.set == 1)


@pytest.mark.parametrize("shuffle", [0, 16, 2000])
def test_the_shards_of_a_stretch_are_those_that_are_read(shuffle):
    counts = [300, 1200, 77, 2000, 900, 1, 1500]
    one = order(counts=(counts,), shuffle=shuffle, streams=2).sets[0]
    length = max(one.block, AHEAD)
    for stream in (0, 1):
        for number in range(5):
            slots = [position * 2 + stream for position in range(number * length, (number + 1) * length)]
            assert {one.stretch(slot) for slot in slots} == {(stream, number)}
            read = {next(one.places(slot))[0] for slot in slots}
            assert read <= set(one.shards_of(stream, number))


def test_mixture_shares_do_not_follow_the_ranks():
    mixed = order(counts=[[1000], [1000]])
    of_rank = [Counter(mixed.locate(slot)[0] for slot in range(rank, 8000, 2)) for rank in (0, 1)]
    assert all(450 < counts[0] * 1000 / counts.total() < 550 for counts in of_rank)


def test_a_large_batch_of_any_rank_holds_all_sets():
    mixed = order(counts=[[1000], [1000], [1000]], weights=[8, 1, 1])
    for update in range(5):
        chosen = Counter(mixed.locate(slot)[0] for slot in BatchPlan(512, world=4, rank=1).slots(update))
        assert set(chosen) == {0, 1, 2}


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (4, 1), (2, 3), (1, 4), (6, 2)])
def test_ranks_and_micro_batches_divide_the_global_batch(world, accumulate):
    batch = 48
    for update in (0, 5):
        slots = []
        for rank in range(world):
            plan = BatchPlan.check(batch, world, rank, accumulate)
            mine = [slot for part in range(accumulate) for slot in plan.slots(update * accumulate + part)]
            assert all(slot % world == rank for slot in mine)
            assert mine == sorted(mine)
            slots += mine
        assert sorted(slots) == list(range(update * batch, (update + 1) * batch))


def test_a_batch_that_does_not_divide_names_the_nearest():
    with pytest.raises(ValueError, match=r"data.batch_size=100 does not divide over 8 ranks x 2 .* Use 96 or 112\."):
        BatchPlan.check(100, 8, 0, 2)
    with pytest.raises(ValueError, match=r"Use 16\."):
        BatchPlan.check(3, 8, 0, 2)


def test_a_set_smaller_than_the_streams_is_refused():
    with pytest.raises(ValueError, match=r"Use data\.streams=5 or fewer"):
        StreamOrder([[5]], streams=8)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        order(counts=[[100], [100]], weights=weights)


def test_slot_seeds_are_apart():
    seeds = {slot_seed(seed, slot) for seed in range(20) for slot in range(500)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = np.array([[seed >> i & 1 for i in range(63)] for seed in seeds])
    assert np.abs(bits.mean(0) - 0.5).max() < 0.03
