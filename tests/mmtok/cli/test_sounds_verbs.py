"""Sounds to codes and back by the verbs, in either format, whole and in chunks."""

import os
import subprocess
import sys
import wave

import pytest
import torch

import mmtok
from mmtok.cli import main
from mmtok.codes import Codes
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.container import read_mmc
from mmtok.tokenizers.sounds import write_wave

RATE = 8000
ENCODER = {"name": "seanet", "channels": 2, "strides": [4, 5]}


def save(path, encoder=None, seed=0, **fields):
    """A checkpoint as training leaves it."""
    torch.manual_seed(seed)
    tokenizer = {"name": "audio", "dim": 8, "sample_rate": RATE, "encoder": ENCODER | (encoder or {})} | fields
    quantizer = {"name": "rq", "codebook_size": 16, "depth": 2}
    state = {f"tokenizer.{name}": value for name, value in build_tokenizer(tokenizer, quantizer).state_dict().items()}
    config = {"plugins": [], "tokenizer": tokenizer, "quantizer": quantizer, "optim": {"ema": 0}}
    torch.save({"mmtok": {"config": config}, "state_dict": state}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / "speech.ckpt")


@pytest.fixture
def talk(tmp_path):
    generator = torch.Generator().manual_seed(0)
    write_wave([torch.randn(1, 2, 16 * 1003 + 7, generator=generator).mul(0.2)], tmp_path / "talk.wav", 16000)
    return tmp_path / "talk.wav"


def header(path):
    with wave.open(str(path)) as file:
        return file.getframerate(), file.getnchannels(), file.getnframes()


@pytest.mark.parametrize(("form", "suffix"), [("safetensors", ".codes.safetensors"), ("mmc", ".mmc")])
def test_codes_decode_in_a_fresh_process_to_the_same_bits(checkpoint, talk, tmp_path, form, suffix):
    assert main(["encode", str(checkpoint), str(talk), "-o", str(tmp_path / "codes"), "--format", form]) == 0
    file = tmp_path / "codes" / f"talk{suffix}"
    command = [sys.executable, "-m", "mmtok", "decode", str(checkpoint), str(file), "-o", str(tmp_path / "out")]
    # Sums are split over threads: as many there as here.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, check=True, timeout=300, env=os.environ | threads)
    tokenizer = mmtok.load(checkpoint).optimize()
    codes = tokenizer.encode(tokenizer.preprocess(talk))
    found = read_mmc(file)[0] if form == "mmc" else Codes.load(file)[0]
    assert torch.equal(found.ids, codes.ids)
    tokenizer.write(tokenizer.decode(codes), tmp_path / "want.wav")
    assert (tmp_path / "out" / "talk.wav").read_bytes() == (tmp_path / "want.wav").read_bytes()
    assert header(tmp_path / "want.wav") == (RATE, 1, (16 * 1003 + 7 + 1) // 2)


def test_another_tokenizers_file_and_a_broken_one_are_refused_by_name(checkpoint, talk, tmp_path, capsys):
    assert main(["encode", str(checkpoint), str(talk), "-o", str(tmp_path), "--format", "mmc"]) == 0
    other = save(tmp_path / "other.ckpt", seed=1)
    assert main(["decode", str(other), str(tmp_path / "talk.mmc"), "-o", str(tmp_path / "out")]) == 2
    assert "talk.mmc was written by another tokenizer than" in capsys.readouterr().err
    data = bytearray((tmp_path / "talk.mmc").read_bytes())
    data[-20] ^= 4
    for content, said in (
        (bytes(data), "is damaged: its checksum"),
        (bytes(data[:-9]), "is cut short"),
        (b"x", "no .mmc"),
    ):
        (tmp_path / "talk.mmc").write_bytes(content)
        assert main(["decode", str(checkpoint), str(tmp_path / "talk.mmc"), "-o", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("encoder", [{}, {"core": "lstm"}, {"causal": False, "pad_mode": "reflect"}])
def test_long_sounds_come_in_chunks_by_themselves(encoder, talk, tmp_path, capsys, monkeypatch):
    checkpoint = save(tmp_path / "a.ckpt", encoder)
    monkeypatch.setattr("mmtok.tokenizers.chunks.LONG", 0.9)
    monkeypatch.setattr("mmtok.tokenizers.chunks.SECONDS", 0.3)
    for name in ("auto", "off", "0.25"):
        words = ["-o", str(tmp_path / name), "--chunk", name]
        assert main(["encode", str(checkpoint), str(talk), *words, "--format", "mmc"]) == 0
        assert main(["decode", str(checkpoint), str(tmp_path / name / "talk.mmc"), *words]) == 0
    told = [line.partition(", in ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == ["4 chunks", "4 chunks", "", "", "5 chunks", "5 chunks"]
    for name in ("auto", "0.25"):
        assert torch.equal(
            read_mmc(tmp_path / name / "talk.mmc")[0].ids, read_mmc(tmp_path / "off" / "talk.mmc")[0].ids
        )
        with wave.open(str(tmp_path / name / "talk.wav")) as a, wave.open(str(tmp_path / "off" / "talk.wav")) as b:
            assert a.getparams() == b.getparams()
            some, whole = (torch.frombuffer(bytearray(f.readframes(1 << 20)), dtype=torch.int16).int() for f in (a, b))
            assert (some - whole).abs().max() <= 1  # a rounding may turn over at 1e-7


def test_approximate_chunks_say_what_they_cost(talk, tmp_path, capsys):
    checkpoint = save(tmp_path / "a.ckpt", {"causal": False, "pad_mode": "reflect", "core": "lstm"})
    assert main(["encode", str(checkpoint), str(talk), "-o", str(tmp_path), "--chunk", "0.25"]) == 0
    told = capsys.readouterr().out
    assert "(approximate: its LSTM cannot be carried from chunk to chunk; in three chunks " in told
    assert "% of the ids differ from those of the whole)" in told


def test_normalised_sounds_come_in_chunks_too(talk, tmp_path):
    checkpoint = save(tmp_path / "a.ckpt", normalize="rms")
    for name in ("off", "0.25"):
        words = ["-o", str(tmp_path / name), "--chunk", name, "--format", "mmc"]
        assert main(["encode", str(checkpoint), str(talk), *words]) == 0
    some, whole = (read_mmc(tmp_path / name / "talk.mmc")[0] for name in ("0.25", "off"))
    assert torch.equal(some.ids, whole.ids)
    assert torch.equal(some.extras["gain"], whole.extras["gain"])


def test_what_soundfile_lacks_is_read_too(checkpoint, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "hello.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=RATE)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = RATE
        frame.planes[0].update(bytes(4096))
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert main(["encode", str(checkpoint), str(tmp_path / "hello.m4a"), "-o", str(tmp_path)]) == 0
    assert Codes.load(tmp_path / "hello.codes.safetensors")[0].source_size.item() > 500


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tile", "64"], "--tile is for pictures"),
        (["--chunk", "0.0001"], "shorter than a frame"),
        (["--budget", "3"], "Use 1 to 2"),
    ],
)
def test_options_that_do_not_fit_are_refused(checkpoint, talk, tmp_path, capsys, words, said):
    assert main(["encode", str(checkpoint), str(talk), "-o", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


def test_fewer_levels_are_told_from_all(checkpoint, talk, tmp_path, capsys):
    assert main(["encode", str(checkpoint), str(talk), "-o", str(tmp_path), "--budget", "1"]) == 0
    assert "x 1 of 2 levels" in capsys.readouterr().out


def test_folders_that_are_no_file_and_no_tokenizer_are_named_as_such(checkpoint, talk, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["encode", str(checkpoint), str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "is a folder. Name its files" in capsys.readouterr().err
    assert main(["encode", str(tmp_path / "empty"), str(talk), "-o", str(tmp_path / "out")]) == 2
    assert "empty is a folder, but no run, import or model" in capsys.readouterr().err


def test_a_length_that_is_none_is_refused(checkpoint, talk, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["encode", str(checkpoint), str(talk), "-o", str(tmp_path), "--chunk", "short"])
    assert "no length of a chunk" in capsys.readouterr().err


def test_what_is_no_sound_is_refused_by_name(checkpoint, tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert main(["encode", str(checkpoint), str(tmp_path / "a.wav"), "-o", str(tmp_path)]) == 2
    assert "a.wav cannot be read as a sound" in capsys.readouterr().err
