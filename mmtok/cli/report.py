"""Write one self-contained HTML page of runs or comparisons: verdict, figures, curves, pictures, sounds, codes.

  mmtok report runs/mine                              # writes runs/mine/report.html
  mmtok report compare/bits10 -o bits10.html          # a comparison, with error bars and places
  mmtok report runs/vq runs/fsq runs/codec            # side by side, of any kinds of signal
  mmtok report compare/                               # every run and comparison in a folder
  mmtok report runs/survey                            # a study, with its title and its questions
  mmtok report runs/survey --tensorboard runs/board   # the same figures for tensorboard --logdir runs/board
  mmtok report runs/survey --wandb tokenizers         # and as a run of that W&B project, with the page in it

The page asks the network for nothing, and opens from a disk. Tokenizers are loaded to draw maps of codes; where shards
or checkpoints are elsewhere, the page says so and shows the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN|DIR", help="runs, comparisons, or folders of them")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="(default: report.html in the one folder given)")
    parser.add_argument(
        "--study", metavar="NAME|FILE", help="the study that the comparisons are parts of (default: the folder's own)"
    )
    parser.add_argument("--title", help="of the page (default: the names of what it shows)")
    parser.add_argument("--items", type=int, default=6, help="pictures or sounds of each run (default 6)")
    parser.add_argument("--quick", action="store_true", help="load no tokenizer: no maps, only items that files hold")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="write its figures there too; a new folder")
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="log page and figures to W&B too (WANDB_MODE=offline: to disk)"
    )


def run(args: argparse.Namespace) -> int:
    from datetime import datetime

    from mmtok import __version__
    from mmtok.compare.study import KEPT, Study
    from mmtok.report.dashboards import check_dashboards
    from mmtok.report.dashboards.tensorboard import to_tensorboard
    from mmtok.report.dashboards.wandb import to_wandb
    from mmtok.report.page import render, write_page
    from mmtok.report.story import tell

    if args.items < 0:
        raise ValueError(f"--items={args.items} must be 0 or more.")
    check_dashboards(args.tensorboard, args.wandb)
    one = args.paths[0] if len(args.paths) == 1 else None
    out = args.out or (one / REPORT if one is not None else Path(REPORT))
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Give a file: -o {out / REPORT}.")
    kept = one / KEPT if one is not None else Path()
    named = args.study or (str(kept) if kept.is_file() else None)
    study = Study.read(named) if named else None
    asks = {part.name: part.asks for part in study.parts} if study else {}
    story = tell(args.paths, args.items, args.quick, print, asks)
    names = [path.resolve().name for path in args.paths]
    title = (
        args.title
        or (study.title if study else "")
        or ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    )
    now = datetime.now().astimezone()
    write_page(render(story, title, f"{now:%Y-%m-%d %H:%M} · mmtok {__version__}"), out)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if args.tensorboard:
        to_tensorboard(story, args.tensorboard)
        print(f"wrote {args.tensorboard}: tensorboard --logdir {args.tensorboard}")
    if args.wandb:
        to_wandb(story, out, title, args.wandb, print)
    return 0
