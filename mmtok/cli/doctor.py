"""Say what this machine has, and what each recipe still lacks.

mmtok doctor                  # exit status 1 where something required is missing
mmtok doctor --json
mmtok doctor --fetch lpips    # the backbones of the perceptual loss
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from mmtok.cli.checks import Check, examine

MARKS = {"ok": "ok  ", "note": "note", "missing": "MISS"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fetch", choices=["lpips"], help="get weights that are not ours to ship, then examine")
    parser.add_argument("--json", action="store_true", help="print a list of checks for other programs")


def run(args: argparse.Namespace) -> int:
    if args.fetch:
        from mmtok.weights import fetch_lpips

        fetch_lpips(say=lambda text: None if args.json else print(text))
    checks = examine()
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=1))
    else:
        print(render(checks))
    return 1 if any(check.status == "missing" and check.required for check in checks) else 0


def render(checks: list[Check]) -> str:
    """Checks by section, with a remedy below what has one."""
    lines: list[str] = []
    for section in dict.fromkeys(check.section for check in checks):
        lines += ["", section]
        for check in (one for one in checks if one.section == section):
            lines.append(f"  {MARKS[check.status]}  {check.name:<22} {check.detail}".rstrip())
            if check.remedy and check.status != "ok":
                lines.append(f"        -> {check.remedy}")
    lacking = [check.name for check in checks if check.status == "missing" and check.required]
    lines += ["", f"Required and missing: {', '.join(lacking)}." if lacking else "All that is required is here."]
    return "\n".join(lines[1:])
