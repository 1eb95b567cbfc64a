"""A run that was killed ends where one that was not does: weights, log, and when it validates and saves."""

import csv

import pytest
import torch

from mmtok.loading import read_checkpoint
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train

RQ = {"name": "rq", "codebook_size": 16, "depth": 2, "dropout": 0.5, "restart": 0.1, "init": "kmeans"}


def silent(line):
    pass


def weights(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in found]


def kill_at(monkeypatch, step):
    """The process dies in update `step`, as if by the scheduler: nothing is saved on the way out."""
    update = TokenizerModule._update

    def dying(self, *args):
        if self.trainer.global_step == step:
            raise ProcessLookupError
        update(self, *args)

    monkeypatch.setattr(TokenizerModule, "_update", dying)


# Saved every 2 updates and validated every 3: at 2 in the middle, at 6 after the validation of the same update, which
# must be neither skipped nor repeated (platform.md 9).
@pytest.mark.parametrize(("killed", "accumulate"), [(3, 1), (3, 2), (7, 1), (7, 2)])
def test_a_killed_run_ends_as_an_uninterrupted_one(tiny, tmp_path, monkeypatch, killed, accumulate):
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "mid_blocks": 0}
    blocks = {
        "quantizer": RQ,
        # Dropout draws from torch's own generator, which no checkpoint holds (platform.md 2.21).
        "tokenizer": {"encoder": encoder | {"dropout": 0.2}},
        "trainer": {"max_steps": 8, "accumulate": accumulate},
        "optim": {"schedule": "cosine", "warmup_steps": 4},
    }
    straight = train(tiny(**blocks, run_dir=str(tmp_path / "straight")), silent)
    with monkeypatch.context() as patch:
        kill_at(patch, killed)
        with pytest.raises(ProcessLookupError):
            train(tiny(**blocks), silent)
    told: list[str] = []
    resumed = train(tiny(**blocks), told.append)
    assert f"from step {killed - 1}" in told[0]
    expected, got = weights(straight), weights(resumed)
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    assert [row["step"] for row in rows(resumed)] == [row["step"] for row in rows(straight)]
    for mine, other in zip(rows(resumed), rows(straight), strict=True):
        for name in ("loss", "optim/lr", "samples", "val/loss", "val/psnr"):
            assert mine[name] == other[name], f"{name} at {mine['step']}"
