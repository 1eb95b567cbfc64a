from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from datamodules.order import MIX_WINDOW, BatchPlan, StreamOrder, slot_seed

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


def test_mixture_shares_are_exact_and_each_set_is_read_without_gaps():
    weights = [0.7, 0.2, 0.1]
    mixed = order(counts=[[1000] * 3, [5000], [333]], weights=weights)
    total = 8 * MIX_WINDOW * 3
    located = [mixed.locate(slot) for slot in range(total)]
    assert len(set(located)) == total
    for number, weight in enumerate(weights):
        slots = [slot for chosen, slot in located if chosen == number]
        assert abs(len(slots) - weight * total) <= 8
        assert max(slots) < len(slots) + 8


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
