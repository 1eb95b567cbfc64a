"""What only a GPU can show. `make gpu` runs these; elsewhere they are skipped."""

import pytest
import torch

from mmtok.loading import read_checkpoint
from mmtok.quantizers import build_quantizer, quantizer_names

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("name", quantizer_names())
def test_a_quantizer_gives_the_same_ids_on_the_gpu(name):
    torch.manual_seed(0)
    quantizer = build_quantizer(name, dim=32).eval()
    z = torch.randn(4, 256, 32)
    here, there = quantizer(z, grid=(16, 16)), quantizer.cuda()(z.cuda(), grid=(16, 16))
    same = (here.ids == there.ids.cpu()).float().mean() if here.ids.numel() else torch.tensor(1.0)
    assert same > 0.999  # ties within rounding may fall to either side
    if same == 1:
        torch.testing.assert_close(there.values.cpu(), here.values, rtol=1e-4, atol=1e-4)


def test_the_search_is_exact_whatever_is_set_for_matmuls():
    from mmtok.quantizers.search import nearest

    torch.manual_seed(0)
    x, codes = torch.randn(4096, 64, device="cuda"), torch.randn(2048, 64, device="cuda")
    exact = torch.cdist(x.double(), codes.double()).argmin(1)
    with torch.autocast("cuda", torch.bfloat16):
        assert (nearest(x, codes) == exact).float().mean() > 0.9999


@pytest.mark.parametrize("adaptive", [False, True])
def test_no_step_between_two_lines_of_the_log_waits_for_the_device(tmp_path, monkeypatch, adaptive):
    from datamodules.build import build_shards
    from mmtok.config import load_config
    from mmtok.training.module import TokenizerModule
    from mmtok.training.run import train

    def watch(module, batch, batch_idx):
        quiet = module.trainer.global_step in (5, 6, 7)
        torch.cuda.set_sync_debug_mode("error" if quiet else "default")

    monkeypatch.setattr(TokenizerModule, "on_train_batch_start", watch)
    build_shards("fixture", tmp_path / "shards")
    settings = [f"data.shards={tmp_path / 'shards' / 'train'}", f"run_dir={tmp_path / 'run'}", "trainer.max_steps=10"]
    settings += ["trainer.accelerator=gpu", "trainer.val_every=10", "log.every_steps=10", "log.usage_every_steps=10"]
    settings += ["adversary.lecam=0.01", f"adversary.adaptive={str(adaptive).lower()}", "checkpoint.every_steps=10"]
    settings += ["adversary.start=0", "adversary.lead=0", "loss.perceptual=null"]
    try:
        train(load_config(["image/vqgan_cifar"], settings).config, say=lambda line: None)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_trains_in_bfloat16(tmp_path, compiled):
    from datamodules.build import build_shards
    from mmtok.config import load_config
    from mmtok.training.run import train

    build_shards("fixture", tmp_path / "shards")
    settings = [f"data.shards={tmp_path / 'shards' / 'train'}", f"run_dir={tmp_path / 'run'}", "trainer.max_steps=4"]
    settings += ["trainer.accelerator=gpu", "trainer.val_every=2", f"trainer.compile={str(compiled).lower()}"]
    run = train(load_config(["image/demo"], settings).config, say=lambda line: None)
    state = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
