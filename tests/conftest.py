"""Small runs, trained once by the command itself on the committed fixture, held-out signals, and pairs of ranks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = (
    "tokenizer.encoder.channels=8", "quantizer.codebook_size=64", "data.batch_size=4", "data.image_size=32",
    "data.workers=0", "data.val_samples=6", "optim.warmup_steps=0", "trainer.precision=32", "trainer.accelerator=cpu",
    "trainer.threads=1", "trainer.max_steps=3", "trainer.val_every=0",
)  # fmt: skip


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    from mmtok.cli import main

    folder = tmp_path_factory.mktemp("cli") / "shards"
    assert main(["shards", "build", "fixture", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def run(shards):
    from mmtok.cli import main

    folder = shards.parent / "run"
    words = ["train", "image/demo", "logger/quiet", f"data.shards={shards}/train", f"run_dir={folder}", *SMALL]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="session")
def photograph(shards):
    from datamodules.shards import ShardSet

    path = shards.parent / "cat.jpg"
    path.write_bytes(ShardSet.open(shards / "val").read(0, 0).members["jpg"])
    return path


@pytest.fixture(scope="session")
def alexnet(tmp_path_factory):
    """TORCH_HOME/hub/checkpoints/FILE, an AlexNet as torchvision caches it, with random weights."""
    import torch
    import torchvision

    with torch.device("meta"):
        features = torchvision.models.alexnet().features.state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        f"features.{name}": torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        for name, value in features.items()
    }
    path = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


SMALL_CODEC = (
    "adversary=null", "tokenizer.sample_rate=16000", "tokenizer.dim=16", "tokenizer.encoder.channels=4",
    "tokenizer.encoder.strides=[4,5]", "quantizer.codebook_size=16", "quantizer.depth=2", "data.seconds=0.25",
    "data.batch_size=4", "data.crops=1", "data.workers=0", "data.val_samples=2", "trainer.accelerator=cpu",
    "trainer.threads=1", "trainer.max_steps=2", "trainer.val_every=0",
)  # fmt: skip


@pytest.fixture(scope="session")
def sound_shards(tmp_path_factory):
    from mmtok.cli import main

    pytest.importorskip("soundfile")
    folder = tmp_path_factory.mktemp("sounds") / "shards"
    assert main(["shards", "build", "fixture:sonic-pi", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def codec(sound_shards):
    """A small run of sounds."""
    from mmtok.cli import main

    folder = sound_shards.parent / "codec"
    words = ["train", "audio/soundstream", "logger/quiet", f"data.shards={sound_shards}/train", f"run_dir={folder}"]
    assert main([*words, *SMALL_CODEC]) == 0
    return folder


@pytest.fixture(scope="session")
def talk(sound_shards):
    """A held-out sound as a file."""
    from datamodules.shards import ShardSet

    path = sound_shards.parent / "talk.flac"
    path.write_bytes(ShardSet.open(sound_shards / "val").read(0, 0).members["flac"])
    return path


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory):
    """two_ranks(script) -> what `script RANK WORLD PORT OUT` saves as each of two gloo ranks, and as one process."""

    def start(script):
        import torch

        folder = tmp_path_factory.mktemp("worlds")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        places = [(0, 2), (1, 2), (0, 1)]
        starts = [
            [sys.executable, str(script), str(rank), str(world), str(port), str(folder)] for rank, world in places
        ]
        processes = [subprocess.Popen(start, env=env, stderr=subprocess.PIPE, text=True) for start in starts]
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        return tuple(torch.load(folder / f"{rank}of{world}.pt") for rank, world in places)

    return start
