"""Training on two gloo ranks is training on one process: weights, codebooks, averages and what is measured."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules.build import build_shards

ROOT, SCRIPT = Path(__file__).parents[3], Path(__file__).with_name("two_ranks.py")
CASES = ("vq", "vq-halves", "rq", "rq-halves", "lfq")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """The folder in which one process and two ranks trained every case."""
    out = tmp_path_factory.mktemp("worlds")
    build_shards("fixture", out / "shards")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    starts = [[sys.executable, str(SCRIPT), world, str(out)] for world in ("1", "2")]
    runs = [subprocess.Popen(start, env=env, stderr=subprocess.PIPE, text=True) for start in starts]
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
    return out


def state(worlds, case, rank, world):
    return torch.load(worlds / f"{case}-{rank}of{world}.pt")


def rows(worlds, case, world):
    with (worlds / f"{case}-{world}" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("case", CASES)
def test_both_ranks_hold_the_same_weights_bit_by_bit(worlds, case):  # image.md trap 3
    first, second = state(worlds, case, 0, 2), state(worlds, case, 1, 2)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_end_where_one_process_does(worlds, case):  # platform.md 2.9, 2.10
    torch.testing.assert_close(state(worlds, case, 0, 2), state(worlds, case, 0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_log_what_one_process_does(worlds, case):  # platform.md 2.13: sums over ranks, not means of means
    one, two = rows(worlds, case, 1), rows(worlds, case, 2)
    assert [row["step"] for row in one] == [row["step"] for row in two] == ["1", "5", "10"]
    # The probe sees the first rank's share; the entropy of lfq is of a batch, and validation cuts those differently.
    apart = ("speed/", "probe/", "alarm/drift", *(("val/loss",) if case == "lfq" else ()))
    names = [name for name in one[0] if not name.startswith(apart) or name == "val/loss/pixel"]
    assert {"loss", "samples", "usage/active", "val/psnr", "val/usage/tokens", "val/quantization_gap"} <= {*names}
    for mine, other in zip(one, two, strict=True):
        for name in names:
            assert float(other[name] or "nan") == pytest.approx(float(mine[name] or "nan"), rel=1e-3, nan_ok=True), name


def test_padding_of_uneven_ranks_is_not_measured(worlds):
    assert {float(rows(worlds, "vq", world)[-1]["val/usage/tokens"]) for world in (1, 2)} == {9 * 64}


def test_only_the_first_rank_writes(worlds):
    for case in CASES:
        found, alone = (sorted(path.name for path in (worlds / f"{case}-{world}").rglob("*")) for world in (2, 1))
        assert found == alone
