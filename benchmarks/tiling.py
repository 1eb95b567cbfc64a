"""Big pictures in tiles against whole: time, memory, distance and seams, with GroupNorm and without.

`python -m benchmarks.tiling` prints a table and, with `--picture FILE`, draws tiles and whole of the smallest size.
Two networks of one body (f4, 32 channels; VQ of 512 codes) are trained for a few hundred updates on crops of 64 px, so
that they reconstruct something, and then encode and decode a photograph that they never saw, enlarged to each size.
Every measurement runs in a process of its own: its memory is the peak of what is resident, above what was before
(picture and tokenizer), less the reconstruction. "Ids that differ" is of the encodings, and after the slash how many of
them have a margin above 1e-4 between best and second-best code; "difference" is between decodings of the same codes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.quantizers import resident
from benchmarks.tables import table
from mmtok.codes import Codes
from mmtok.evaluation.pictures import contact_sheet
from mmtok.tokenizers import Tokenizer, build_tokenizer
from mmtok.tokenizers.pixels import to_uint8
from mmtok.tokenizers.seams import seam_ratio
from mmtok.tokenizers.tiling import Tiled

ENCODER = {"name": "conv2d", "patch": 2, "channels": 32, "multipliers": [1, 2], "blocks": 1, "mid_blocks": 0}
QUANTIZER = {"name": "vq", "codebook_size": 512, "init": "kmeans", "restart": 0.1}
NORMS = {"none": "no norm", "group": "GroupNorm"}
CROP = 64


def build(norm: str) -> Tokenizer:
    torch.manual_seed(0)
    encoder = {**ENCODER, "norm": norm}
    return build_tokenizer({"name": "image", "dim": 32, "image_size": CROP, "encoder": encoder}, QUANTIZER)


def photograph(name: str) -> Tensor:
    """One of scikit-image's pictures as x."""
    from skimage import data

    return torch.from_numpy(getattr(data, name)()).movedim(-1, 0)[None].float() / 127.5 - 1


def enlarged(side: int) -> Tensor:
    """A picture of the retina: a dark border, smooth parts and fine vessels, so statistics change from tile to tile."""
    return F.interpolate(photograph("retina"), size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def train(norm: str, steps: int) -> Tokenizer:
    """A few hundred updates on crops of three photographs."""
    tokenizer, generator = build(norm), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 2e-3)
    sources = [photograph(name)[0] for name in ("astronaut", "coffee", "chelsea")]
    for step in range(steps):
        crops = []
        for _ in range(8):
            pick, top, left = torch.rand(3, generator=generator).tolist()
            source = sources[int(pick * len(sources))]
            y, x = int(top * (source.shape[1] - CROP)), int(left * (source.shape[2] - CROP))
            crops.append(source[:, y : y + CROP, x : x + CROP])
        batch = torch.stack(crops)
        out = tokenizer(batch)
        loss = (out.x - batch).square().mean() + sum(out.quantized.losses.values())
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        optimizer.step()
        tokenizer.quantizer.update(out.quantized.stats)
    return tokenizer.eval().requires_grad_(False)


def measure(norm: str, folder: Path, side: int, tile: int | None) -> tuple[float, float, Codes, Path]:
    """Seconds, extra bytes, codes, and where the reconstruction lies, of a picture whole or in tiles."""
    torch.set_num_threads(1)
    tokenizer = build(norm)
    tokenizer.load_state_dict(torch.load(folder / f"{norm}.pt"))
    x = enlarged(side)
    used = tokenizer.eval() if tile is None else Tiled(tokenizer, tile)
    used.decode(used.encode(x[:, :, :CROP, :CROP]))  # what libraries allocate once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before, start = resident("VmRSS"), time.perf_counter()
    codes = used.encode(x)
    y = used.decode(codes)
    elapsed, peak = time.perf_counter() - start, resident("VmHWM")
    path = folder / f"{norm}-{side}-{tile}.pt"
    torch.save(y.clone(), path)
    return elapsed, peak - before - y.numel() * y.element_size(), codes, path


def in_own_process(norm: str, folder: Path, side: int, tile: int | None) -> tuple[float, float, Codes, Path]:
    """`measure` in a fresh process, where nothing that ran before is still resident."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, norm, folder, side, tile).result()


def margins(tokenizer: Tokenizer, x: Tensor) -> Tensor:
    """(T,) how much further the second-best code is than the best, by few positions at a time: distances are many."""
    with torch.inference_mode():
        return torch.cat([tokenizer.quantizer.margins(part)[0] for part in tokenizer.embed(x).z.split(4096, 1)])


def row(norm: str, tokenizer: Tokenizer, folder: Path, side: int, tile: int) -> list[object]:
    """Both ways of one size."""
    whole_s, whole_bytes, whole, whole_path = in_own_process(norm, folder, side, None)
    tiled_s, tiled_bytes, codes, path = in_own_process(norm, folder, side, tile)
    tiled, x = Tiled(tokenizer, tile), enlarged(side)
    y_whole = torch.load(whole_path)
    differ = (whole.ids != codes.ids)[0, 0]
    clear = int((differ & (margins(tokenizer, x) > 1e-4)).sum()) if differ.any() else 0
    hard = Tiled(tokenizer, tile, blend=False)
    pictures = [torch.load(path), hard.decode(codes), y_whole, x]
    return [
        f"{NORMS[norm]}, {side}x{side}",
        f"{whole_s:.1f} s",
        f"{tiled_s:.1f} s",
        f"{whole_bytes / 2**20:,.0f} MB",
        f"{tiled_bytes / 2**20:,.0f} MB",
        f"{(tiled.decode(whole) - y_whole).abs().max().item():.1e}",
        f"{differ.float().mean():.1%} / {clear:,}",
        *(f"{seam_ratio(picture, tiled):.2f}" for picture in pictures),
    ]


HEADER = ["network, picture", "whole", "tiles", "memory whole", "tiles", "difference", "ids that differ"]
HEADER += ["seam", "not blended", "whole", "source"]


def draw(tokenizers: dict[str, Tokenizer], side: int, tile: int) -> dict[str, Tensor]:
    """Rows of the sheet: a corner where four tiles meet, and how far each is from the whole picture."""
    x = enlarged(side)
    rows: dict[str, list[Tensor]] = {"whole": [], "in tiles": [], "difference x4": []}
    for tiled in (
        Tiled(tokenizers["none"], tile),
        Tiled(tokenizers["group"], tile, blend=False),
        Tiled(tokenizers["group"], tile),
    ):
        top, left = (borders[0] - SHOWN // 2 for borders in tiled.borders(side, side))
        codes = tiled.tokenizer.encode(x)
        pair = [
            y[0, :, top : top + SHOWN, left : left + SHOWN]
            for y in (tiled.tokenizer.decode(codes), tiled.decode(codes))
        ]
        whole, tiles = (to_uint8(y) for y in pair)
        rows["whole"].append(whole)
        rows["in tiles"].append(tiles)
        rows["difference x4"].append(((whole.int() - tiles.int()).abs() * 4).clamp(max=255).to(torch.uint8))
    return {label: torch.stack(pictures) for label, pictures in rows.items()}


SHOWN = 192
"""Side of what is drawn."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiling", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096], help="sides of the pictures")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--steps", type=int, default=400, help="updates of each network")
    parser.add_argument("--picture", type=Path, help="draw the smallest size")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tokenizers, rows = {}, []
    with tempfile.TemporaryDirectory() as name:
        for norm in NORMS:
            tokenizers[norm] = train(norm, args.steps)
            torch.save(tokenizers[norm].state_dict(), Path(name, f"{norm}.pt"))
        if args.picture:
            captions = ["no norm", "GroupNorm, not blended", "GroupNorm"]
            contact_sheet(draw(tokenizers, min(args.sizes), args.tile), captions=captions).save(args.picture)
        for norm, tokenizer in tokenizers.items():
            for side in args.sizes:
                rows.append(row(norm, tokenizer, Path(name), side, args.tile))
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
