"""Each quantizer through a whole run: training, validation, usage, checkpoint, and back from it."""

import pytest
import torch

from mmtok.loading import load, read_checkpoint
from mmtok.training.run import train

QUIET = {"say": lambda line: None}
ENTROPY = {"entropy_weight": 0.01, "entropy_temperature": 0.5}
BLOCKS = {
    "simvq": {"name": "simvq", "codebook_size": 16},
    "ibq": {"name": "ibq", "codebook_size": 16, **ENTROPY},
    "bsq": {"name": "bsq", "bits": 6, "group_size": 4},
    "gumbel": {"name": "gumbel", "codebook_size": 16, "anneal_updates": 4},
    "multiscale": {"name": "multiscale", "codebook_size": 16, "scales": [1, 2, 4]},
    "rq": {"name": "rq", "codebook_size": 16, "depth": 2, "beam": 4, "train_beam": 2, "gradient": "rotate"},
    "vq": {"name": "vq", "codebook_size": 16, "restart": 0.1, "restart_policy": "blend", **ENTROPY},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_run_trains_and_its_codes_come_back(tiny, name):
    run = train(tiny(quantizer=BLOCKS[name], log={"media_every_steps": 3, "usage_every_steps": 2}), **QUIET)
    tokenizer, x = load(run), torch.rand(2, 3, 8, 8) * 2 - 1
    codes = tokenizer.encode(x)
    assert tokenizer.decode(codes).shape == x.shape
    assert torch.equal(tokenizer.encode(x).ids, codes.ids)
    header = (run / "metrics.csv").read_text().partition("\n")[0]
    assert "usage/" in header
    assert "val/" in header
    assert any((run / "media").iterdir())


def test_draws_do_not_depend_on_accumulation(tiny, tmp_path):
    block = BLOCKS["gumbel"]
    whole, halves = (
        read_checkpoint(
            train(
                tiny(quantizer=block, optim={"eps": 1e-3}, trainer={"accumulate": n}, run_dir=str(tmp_path / f"by{n}")),
                **QUIET,
            )
            / "checkpoints"
            / "last.ckpt"
        )["state_dict"]
        for n in (1, 2)
    )
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-5, msg=name)
