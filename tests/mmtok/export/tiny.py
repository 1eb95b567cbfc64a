"""Tokenizers and shard sets so small that a test can make its own."""

import io
import wave

import numpy as np
import torch
from PIL import Image

from datamodules.writer import ShardWriter
from mmtok.export.folder import write_model
from mmtok.tokenizers import build_tokenizer

CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "groups": 4}
QUERIES = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 6}
SEANET = {"name": "seanet", "channels": 4, "strides": [4, 5]}


def image_tokenizer(folder, seed=0):
    """16 px, f2, 64 codes, as `mmtok import` would leave it."""
    torch.manual_seed(seed)
    tokenizer = {"name": "image", "image_size": 16, "dim": 8, "encoder": CONV}
    write_model(build_tokenizer(tokenizer, {"name": "fsq", "levels": [8, 8]}), folder)
    return str(folder)


def audio_tokenizer(folder, seed=0, **fields):
    """8 kHz, 20 samples a frame, two levels of 16 codes."""
    torch.manual_seed(seed)
    tokenizer = {"name": "audio", "sample_rate": 8000, "dim": 8, "encoder": SEANET} | fields
    quantizer = {"name": "residual", "depth": 2, "inner": {"name": "vq", "codebook_size": 16}}
    write_model(build_tokenizer(tokenizer, quantizer), folder)
    return str(folder)


def row_tokenizer(folder, seed=0, nested="uniform"):
    """16 px to 6 tokens of 64 codes each, of which the first may do."""
    torch.manual_seed(seed)
    tokenizer = {"name": "image_1d", "image_size": 16, "dim": 8, "nested": nested, "encoder": QUERIES}
    write_model(build_tokenizer(tokenizer, {"name": "fsq", "levels": [8, 8]}), folder)
    return str(folder)


def png(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def wav(samples, seed, rate=8000):
    signal = np.random.default_rng(seed).integers(-9000, 9000, samples, dtype=np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(signal.tobytes())
    return file.getvalue()


def write_set(folder, kind, samples, each=4):
    """A shard set of {key: members}, `each` samples a shard."""
    with ShardWriter(folder, kind=kind, split="train", samples_per_shard=each) as writer:
        for key, members in samples.items():
            writer.add(key, members)
    return str(folder)


def pictures(folder, count=10, sizes=((16, 16),), each=4, **more):
    samples = {
        f"item{i:03d}": {"png": png(*sizes[i % len(sizes)], i), "txt": f"picture number {i}".encode()}
        for i in range(count)
    }
    return write_set(folder, "images", samples | more, each)


def sounds(folder, count=10, each=4, **more):
    samples = {
        f"item{i:03d}": {"wav": wav(200 + 37 * (i * 7 % 10), i), "txt": f"sound number {i}".encode()}
        for i in range(count)
    }
    return write_set(folder, "audio", samples | more, each)
