"""Tokenizers, a vocabulary and sets of codes that several files of tests look at and none changes."""

import pytest
import torch

import mmtok
from mmtok.export.bundle import write_bundle
from tests.mmtok.export import packing, tiny
from tests.mmtok.export.tokenizing import go


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    return tiny.image_tokenizer(tmp_path_factory.mktemp("image") / "tokenizer")


@pytest.fixture(scope="session")
def audio(tmp_path_factory):
    return tiny.audio_tokenizer(tmp_path_factory.mktemp("audio") / "tokenizer")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Bundles, a vocabulary of both, sets of codes and their sources: items 0-9 with pictures, 5-14 with sounds."""
    pytest.importorskip("transformers")
    from mmtok.export.vocab import merge

    folder = tmp_path_factory.mktemp("world")
    packing.write_text_base(folder / "base")
    write_bundle(mmtok.load(tiny.image_tokenizer(folder / "i")), folder / "image", rows=True)
    write_bundle(mmtok.load(tiny.audio_tokenizer(folder / "a")), folder / "audio")
    merge(folder / "base", [folder / "image", folder / "audio"], folder / "vocab")
    text = packing.TEXT_IN_MARKUP.encode()
    tiny.pictures(folder / "pictures", 10, ((8, 8), (8, 12)), special={"png": tiny.png(8, 8, 99), "txt": text})
    wavs = {f"item{i:03d}": {"wav": tiny.wav(200 + 20 * i, i)} for i in range(5, 15)}
    tiny.write_set(folder / "sounds", "audio", wavs)
    go(folder / "image", folder / "pictures", folder / "codes-image", batch=4)
    go(folder / "audio", folder / "sounds", folder / "codes-audio", batch=4)
    return folder
