"""Codecs of sound hold to their equalities: streams, chunks, batches, lengths and files.

    python -m benchmarks.lengths [--quick] [--out FILE]

Small networks of four kinds at strides 2, 3, 4, 5, 8 and at all of them in one, with random weights. Errors are the
largest between samples decoded from the same codes; ids count where they differ although the best code is nearer than
the second by 1e-4. Exits with 1 where an error exceeds 1e-5, an id differs, a length changes, or a file decodes to
anything else in a fresh process. Weights of other libraries: `benchmarks.native`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.copies import build, decisive, scattered
from benchmarks.tables import table
from mmtok import load
from mmtok.codes import Codes
from mmtok.export.folder import write_model
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.chunks import Chunked
from mmtok.tokenizers.container import read_mmc, write_mmc

TOLERANCE = 1e-5
KINDS: dict[str, dict[str, Any]] = {
    "causal, zeros": {},
    "causal, reflect, LSTM": {"core": "lstm", "core_layers": 1, "pad_mode": "reflect", "shortcut": "conv"},
    "centred, exact": {"causal": False},
    "centred, dac": {"causal": False, "transpose_padding": "dac", "activation": "snake", "dilations": (1, 3, 9),
                     "residual_kernel": 7, "compress": 1, "latent_kernel": 3, "tanh": True},
}  # fmt: skip
STRIDES = ((2,), (3,), (4,), (5,), (8,), (2, 3, 4, 5, 8))
FRAMES, SAMPLES = 40, 600
"""Of the sounds that are streamed and cut, at least; so many that a chunk does not see all of them."""


class Equal(NamedTuple):
    """One equality of one tokenizer."""

    error: float
    """Largest difference between samples."""
    ids: int
    """Ids that differ outside the margin."""

    @property
    def holds(self) -> bool:
        return self.error <= TOLERANCE and not self.ids

    def __str__(self) -> str:
        return f"{self.error:.0e}, {self.ids}"


def tokenizer_of(kind: str, strides: tuple[int, ...]) -> AudioTokenizer:
    encoder = {"name": "seanet", "channels": 2, "decoder_channels": 2 ** (len(strides) + 1), "strides": strides}
    block = {"name": "audio", "sample_rate": 8000, "dim": 16, "encoder": encoder | KINDS[kind]}
    blocks = {"tokenizer": block, "quantizer": {"name": "rq", "codebook_size": 16, "depth": 4}}
    tokenizer = scattered(build(blocks, seed=0))
    assert isinstance(tokenizer, AudioTokenizer)
    return tokenizer


def noise(batch: int, samples: int) -> Tensor:
    x = torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(samples))
    return (0.3 * x).clamp(-1, 1)


def clear(tokenizer: AudioTokenizer, x: Tensor) -> Tensor:
    """(B, L, T) which ids of x can be compared."""
    compared = decisive(tokenizer.quantizer, tokenizer.embed(x).z)
    assert compared.float().mean() > 0.8 or compared.numel() < 50, "hardly any ids left to compare"
    return compared


def streamed(tokenizer: AudioTokenizer, x: Tensor) -> Equal | None:
    """In pieces of a few sizes against the whole; None where a stream is refused, as it must be if not causal."""
    if not tokenizer.networks.causal:
        try:
            tokenizer.streaming()
        except ValueError:
            return None
        raise AssertionError("a network that is not causal gave a stream")
    whole, compared, hop = tokenizer.encode(x), clear(tokenizer, x), tokenizer.networks.downsample
    y, found = tokenizer.decode(whole), Equal(0.0, 0)
    for frames, samples in ((1, max(hop // 2, 1)), (2, hop), (7, 3 * hop + 1), (whole.ids.shape[2], x.shape[2])):
        stream = tokenizer.streaming(len(x))
        ids = torch.cat([*(stream.encode(p).ids for p in x.split(samples, 2)), stream.finish_encode().ids], 2)
        parts = [stream.decode(codes) for codes in pieces(whole, frames, hop)]
        sound = torch.cat([*parts, stream.finish_decode()], 2)
        found = worst(found, compare(sound, y, ids, whole.ids, compared))
    return found


def pieces(codes: Codes, frames: int, hop: int) -> list[Codes]:
    """Codes of one length in pieces of so many frames."""
    left, parts = int(codes.source_size.max()), []
    for ids in codes.ids.split(frames, 2):
        size = min(ids.shape[2] * hop, left)
        left -= size
        lengths, sizes = torch.full((len(ids),), ids.shape[2]), torch.full((len(ids), 1), size)
        parts.append(Codes(ids, lengths, sizes))
    return parts


def compare(y: Tensor, other: Tensor, ids: Tensor, others: Tensor, compared: Tensor) -> Equal:
    assert y.shape == other.shape
    assert ids.shape == others.shape
    return Equal((y - other).abs().max().item(), int((ids != others)[compared].sum()))


def worst(first: Equal, second: Equal) -> Equal:
    return Equal(max(first.error, second.error), first.ids + second.ids)


def chunked(tokenizer: AudioTokenizer, x: Tensor) -> Equal:
    """In chunks of 1, 3 and 16 frames against one pass."""
    whole, compared = tokenizer.encode(x), clear(tokenizer, x)
    y, found = tokenizer.decode(whole), Equal(0.0, 0)
    for frames in (1, 3, 16):
        seconds = (frames + 0.5) * tokenizer.networks.downsample / tokenizer.config.sample_rate
        cut = Chunked(tokenizer, seconds)
        assert cut.approximate is None
        found = worst(found, compare(cut.decode(whole), y, cut.encode(x).ids, whole.ids, compared))
    return found


def batched(tokenizer: AudioTokenizer, sounds: list[Tensor]) -> Equal:
    """Padded together, with other samples behind their ends, against each alone."""
    lengths = torch.tensor([sound.shape[2] for sound in sounds])
    x = torch.full((len(sounds), 1, int(lengths.max())), 0.5)
    for item, sound in zip(x, sounds, strict=True):
        item[:, : sound.shape[2]] = sound[0]
    together, found = tokenizer.encode(x, lengths), Equal(0.0, 0)
    y = tokenizer.decode(together)
    for index, sound in enumerate(sounds):
        alone = tokenizer.encode(sound)
        frames, samples = alone.ids.shape[2], sound.shape[2]
        # Of the same codes: where an id differs by a tie, so may the sound.
        same = Codes(together.ids[index : index + 1, :, :frames], alone.lengths, alone.source_size)
        ids = together.ids[index : index + 1, :, :frames]
        found = worst(
            found,
            compare(y[index : index + 1, :, :samples], tokenizer.decode(same), ids, alone.ids, clear(tokenizer, sound)),
        )
        assert not y[index, :, samples:].any()
        assert (together.ids[index, :, frames:] == -1).all()
    return found


def lengths_kept(tokenizer: AudioTokenizer, sizes: list[int]) -> int:
    """How many of some lengths come back as they were, and in as many frames as there must be."""
    hop, kept = tokenizer.networks.downsample, 0
    for size in sizes:
        codes = tokenizer.encode(noise(1, size))
        kept += tokenizer.decode(codes).shape[2] == size and codes.ids.shape[2] == -(-size // hop)
    return kept


def leave(tokenizer: AudioTokenizer, x: Tensor, folder: Path) -> Tensor:
    """Write tokenizer and codes; what they decode to in this process."""
    write_model(tokenizer, folder / "tokenizer")
    codes = tokenizer.encode(x)
    write_mmc(codes, folder / "codes.mmc", tokenizer.spec, tokenizer=tokenizer.fingerprint())
    return tokenizer.decode(codes)


def decode_all(root: Path) -> None:
    """What the fresh process does: decode what `leave` left in each folder."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        tokenizer = load(folder / "tokenizer")
        codes, spec, facts = read_mmc(folder / "codes.mmc")
        assert spec == tokenizer.spec
        assert facts["tokenizer"] == tokenizer.fingerprint()
        save_file({"y": tokenizer.decode(codes).contiguous()}, folder / "sound.safetensors")


def equalities(count: int) -> tuple[list[list[str]], bool]:
    """A row for each kind and strides, and whether all of it holds; `count` is of random lengths."""
    rows: list[list[str]] = []
    holds = True
    with tempfile.TemporaryDirectory() as temporary:
        root, here = Path(temporary), {}
        for kind in KINDS:
            for strides in STRIDES:
                tokenizer = tokenizer_of(kind, strides)
                hop = tokenizer.networks.downsample
                x = noise(2, max(FRAMES, SAMPLES // hop) * hop - hop // 2)
                generator = torch.Generator().manual_seed(hop)
                sizes = torch.randint(1, 12 * hop + 100, (count,), generator=generator).tolist()
                stream, cut = streamed(tokenizer, x), chunked(tokenizer, x)
                batch = batched(tokenizer, [noise(1, size) for size in sizes[:6]])
                kept = lengths_kept(tokenizer, sizes)
                here[f"{len(rows):02}"] = leave(tokenizer, x, made(root / f"{len(rows):02}"))
                holds &= all(part is None or part.holds for part in (stream, cut, batch)) and kept == count
                name = f"{kind}: {'-'.join(map(str, strides))}"
                rows.append([name, str(stream or "refused"), str(cut), str(batch), f"{kept} of {count}"])
                print(".", end="", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.lengths", "--decode", str(root)]
        subprocess.run(command, check=True)
        for row, (name, y) in zip(rows, here.items(), strict=True):
            same = torch.equal(load_file(root / name / "sound.safetensors")["y"], y)
            row.append("identical" if same else "differs")
            holds &= same
    return rows, holds


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 random lengths instead of 200")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.decode:
        decode_all(args.decode)
        return 0
    header = ["kind: strides", "stream = whole", "chunks = whole", "batch = single", "length kept", ".mmc, new process"]
    rows, holds = equalities(20 if args.quick else 200)
    print("\n" + table(header, rows), flush=True)
    print("\nall equal" if holds else "\nNOT equal: an error above 1e-5, an id, a length or a file")
    if args.out:
        args.out.write_text(json.dumps({"equal": holds, "equalities": rows}, indent=1) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
