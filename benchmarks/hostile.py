"""What becomes of hostile shards: pickles, bombs, bad paths, cut tars. `python -m benchmarks.hostile [--peer]`.

Each tar is indexed, verified and streamed; the report names what was refused. The pickles would create a file if
anything loaded them. `--peer` reads them with WebDataset's default decoders too, which do.
"""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import struct
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.base import DataConfig
from datamodules.decode import decode, image_extension
from datamodules.indexing import index_tars
from datamodules.reader import BadDataError, SlotSample
from datamodules.shards import ShardSet
from datamodules.stream import BatchStream
from datamodules.verify import verify


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def picture(number: int, size: int = 32) -> bytes:
    """A small JPEG."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes that promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    """One member, whatever its name and type."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, link
    tar.addfile(member, io.BytesIO(data))


def build(folder: Path, marker: Path) -> None:
    """Write the tars; `marker` is the file that a loaded pickle would create."""
    folder.mkdir(parents=True, exist_ok=True)
    code = pickle.dumps(Payload(marker))
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    with tarfile.open(folder / "good.tar", "w") as tar:
        for i in range(64):
            add(tar, f"good{i:03d}.jpg", picture(i))
            add(tar, f"good{i:03d}.cls", b"1")
    with tarfile.open(folder / "pickles.tar", "w") as tar:
        add(tar, "beside.jpg", picture(1))
        add(tar, "beside.pkl", code)
        for extension in ("pkl", "pickle", "pyd", "pth", "pt"):
            add(tar, f"alone_{extension}.{extension}", code)
        add(tar, "zipped.pkl.gz", gzip.compress(code))
        add(tar, "objects.npy", objects.getvalue())
        add(tar, "renamed.jpg", code)
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        add(tar, "truncated.jpg", picture(2)[:500])
        add(tar, "bomb.png", bomb())
        add(tar, "big.png", bomb(9_000))
        add(tar, "empty.jpg")
        add(tar, "text.jpg", b"not a picture")
        add(tar, "label.jpg", picture(3))
        add(tar, "label.cls", b"__import__('os')")
    with tarfile.open(folder / "paths.tar", "w") as tar:
        for name in ("../../escape.jpg", "/absolute.jpg", "a/../../b.jpg", "c:\\windows.jpg", "README", ".hidden"):
            add(tar, name, picture(4))
        add(tar, "symlink.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(tar, "hardlink.jpg", kind=tarfile.LNKTYPE, link="../../escape.jpg")
        add(tar, "device.jpg", kind=tarfile.CHRTYPE)
        add(tar, "twice.jpg", picture(5))
        add(tar, "twice.jpg", picture(6))
        add(tar, "a.b.jpg", picture(7))
        add(tar, "twice.jpg", picture(8))
    whole = (folder / "good.tar").read_bytes()
    (folder / "half.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "header.tar").write_bytes(whole[:30_720] + b"\xff" * 512 + whole[31_232:])
    (folder / "zipped.tar").write_bytes(gzip.compress(whole))
    (folder / "noise.tar").write_bytes(np.random.default_rng(0).bytes(4096))


def as_picture(sample: SlotSample) -> dict[str, Any]:
    """What a data module does with a sample, at its simplest."""
    extension = image_extension(sample.members)
    label = decode("cls", sample.members["cls"]) if "cls" in sample.members else -1
    return {"key": sample.key, "x": decode(extension, sample.members[extension]), "label": label}


def together(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of items of any size."""
    return {name: [item[name] for item in items] for name in items[0]}


def stream(folder: Path, limit: float, updates: int) -> str:
    """What a run over the tars sees."""
    config = DataConfig(shards=str(folder), batch_size=16, streams=2, max_bad_fraction=limit)
    bad, keys = Counter[str](), Counter[str]()
    batches = BatchStream([ShardSet.open(folder)], config, as_picture, together, seed=0)
    try:
        for _, batch in zip(range(updates), batches, strict=False):
            keys.update(batch["key"])
            bad.update(f"{one.shard}/{one.key}" for one in batch["bad"])
    except BadDataError as error:
        return f"stopped: {error}"
    return (
        f"{updates} updates of {config.batch_size}: {keys.total()} samples delivered of {len(keys)} keys, "
        f"{bad.total()} slots filled for {len(bad)} bad samples:\n  {', '.join(sorted(bad))}"
    )


def peer(folder: Path) -> None:
    """The same pickles through WebDataset's default decoders."""
    import webdataset

    source = webdataset.WebDataset(
        str(folder / "pickles.tar"), shardshuffle=False, handler=webdataset.ignore_and_continue
    )
    for _ in source.decode("rgb", handler=webdataset.ignore_and_continue):
        pass


def main() -> int:
    """Build, index, verify, stream; says whether anything was executed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", action="store_true", help="run the pickles (which only create a file) in WebDataset too"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, marker = Path(name) / "tars", Path(name) / "executed"
        build(folder, marker)
        _, indexed = index_tars([str(folder)])
        print(indexed.text(), "", verify(ShardSet.open(folder)).text(), "", sep="\n")
        print("stream, max_bad_fraction 0.5:", stream(folder, 0.5, 40))
        print("stream, max_bad_fraction 0.01:", stream(folder, 0.01, 40))
        ran = marker.exists()
        print(f"\npayloads executed by mmtok: {'YES' if ran else 'none'}")
        if args.peer:
            peer(folder)
            print(f"payloads executed by webdataset's default decoders: {'yes' if marker.exists() else 'none'}")
    return int(ran)


if __name__ == "__main__":
    sys.exit(main())
