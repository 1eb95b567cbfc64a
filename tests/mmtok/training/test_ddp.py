"""Training on two gloo ranks is training on one process: weights, codebooks, averages, the adversary, what is measured.

The cases and what runs them are those of `benchmarks/ddp.py`.
"""

import csv
import re
from pathlib import Path

import pytest
import torch

from benchmarks.ddp import CASES, collectives, run_worlds, state

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """The folder in which one process and two ranks trained every case."""
    out = tmp_path_factory.mktemp("worlds")
    run_worlds(out, list(CASES))
    return out


def rows(worlds, case, world):
    with (worlds / f"{case}-{world}" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("case", CASES)
def test_both_ranks_hold_the_same_weights_bit_by_bit(worlds, case):  # image.md traps 3, 6
    first, second = state(worlds, case, 0, 2), state(worlds, case, 1, 2)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_end_where_one_process_does(worlds, case):  # platform.md 2.9, 2.10; image.md trap 19
    torch.testing.assert_close(state(worlds, case, 0, 2), state(worlds, case, 0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_log_what_one_process_does(worlds, case):  # platform.md 2.13: sums over ranks, not means of means
    one, two = rows(worlds, case, 1), rows(worlds, case, 2)
    assert [row["step"] for row in one] == [row["step"] for row in two] == ["1", "5", "10", "15", "20"]
    # The probe sees the first rank's share; the entropy of lfq, and the strangers of contrastive pairs, are of a batch,
    # and validation cuts those differently.
    of_batches = case.startswith(("lfq", "contrastive"))
    apart = ("speed/", "probe/", "alarm/drift", *(("val/loss",) if of_batches else ()))
    names = [name for name in one[0] if not name.startswith(apart) or name == "val/loss/pixel"]
    measured = {"audio": "val/si_sdr", "text": "val/unigram_bits_per_byte", "vector": "val/mse"}
    quality = measured.get(case.partition("-")[0], "val/psnr")
    assert {"loss", "samples", "usage/active", quality, "val/usage/tokens", "val/quantization_gap"} <= {*names}
    for mine, other in zip(one, two, strict=True):
        for name in names:
            least = 1e-4 if name == "val/quantization_gap" else 1e-6  # a small difference of decibels
            near = pytest.approx(float(mine[name] or "nan"), rel=1e-3, abs=least, nan_ok=True)
            assert float(other[name] or "nan") == near, name


def test_the_ranks_exchange_what_the_docs_say(worlds):  # platform.md 2.12, 2.24
    table = dict(re.findall(r"^\| `([\w-]+)` \| *(\d+) \|", PAGE.read_text(), re.MULTILINE))
    assert table.keys() == CASES.keys()
    for case, number in table.items():
        for rank in (0, 1):
            assert collectives(worlds, case, rank) == {"all_reduce": float(number)}, case


def test_padding_of_uneven_ranks_is_not_measured(worlds):
    assert {float(rows(worlds, "vq", world)[-1]["val/usage/tokens"]) for world in (1, 2)} == {9 * 64}


def test_only_the_first_rank_writes(worlds):
    for case in CASES:
        found, alone = (sorted(path.name for path in (worlds / f"{case}-{world}").rglob("*")) for world in (2, 1))
        assert found == alone
