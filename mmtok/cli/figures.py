"""What `mmtok evaluate` shows a person: figures in a few lines, codecs in a table, pictures beside the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.baselines import CodecResult

FORMATS = {"psnr": "{:.2f}", "ssim": "{:.3f}", "LPIPS": "{:.3f}", "FD": "{:.2f}", "KID": "{:.4f}"}
"""Start of a measure's name -> how it is written; the columns of the table."""
TITLES = {"psnr": "PSNR", "ssim": "SSIM"}


def summary(report: EvaluationReport) -> str:
    """The figures a person looks for first."""
    metrics = report.metrics
    lines = [f"{report.samples:,} pictures: PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}"]
    lines[0] += "".join(f", {name} {written}" for name, written in _shown(metrics) if name not in TITLES)
    if "bits_per_pixel" in metrics:
        lines.append(
            f"{metrics['tokens_per_image']:,.0f} tokens a picture, {metrics['bits_per_pixel']:.3f} bits a pixel; "
            f"without the quantizer {metrics['psnr_bypass']:.2f} dB (gap {metrics['quantization_gap']:.2f})"
        )
    for number, level in enumerate(report.usage):
        name = f"level {number}" if len(report.usage) > 1 else "codes"
        lines.append(
            f"{name}: {use_of(level)}, {level['active']:.1%} of {level['size']:,} in use, "
            f"perplexity {level['perplexity']:,.0f}"
        )
    for name, term in report.choices.get("trained_on", {}).items():
        lines.append(f"{name} flatters this run: {term} trained it with the same network")
    absent = report.choices["lpips"].get("absent", "")
    if absent and absent != "not asked for":
        lines.append(f"LPIPS left out: {absent}")
    return "\n".join(lines)


def use_of(level: Mapping[str, Any]) -> str:
    """How the use of one codebook is judged, or why it is not."""
    from mmtok.quantizers.usage import UsageConfig, UsageState

    if level["state"] != UsageState.UNKNOWN:
        return str(level["state"])
    few, needed = level["tokens_per_code"], UsageConfig().tokens_per_code_min
    return f"{few:.3g} tokens a code are too few to judge by ({needed:g} are not)"


def table(report: EvaluationReport) -> str:
    """The tokenizer and every codec, a row each."""
    names = [name for name, _ in _shown(report.metrics)]
    rows = [["", "bits/pixel", "quality", *(TITLES.get(name, name) for name in names)]]
    rows.append(_row("tokenizer", report.metrics["bits_per_pixel"], "", report.metrics, names))
    for one in report.baselines:
        mark = "" if one["reached"] else " *"
        rows.append(_row(one["codec"] + mark, one["bits_per_pixel"], str(one["quality"]), one["metrics"], names))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    if not all(one["reached"] for one in report.baselines):
        lines.append("* not at equal bits: its lowest quality takes more than the tokenizer has")
    if report.baselines:
        flat = ", ".join(f"{one['codec']} {one['flat_bits_per_pixel']:.3f}" for one in report.baselines)
        lines.append(f"Files are counted whole. A flat grey picture of this size takes, in bits/pixel: {flat}.")
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, bits: float, quality: str, metrics: dict[str, float], names: Sequence[str]) -> list[str]:
    written = dict(_shown(metrics))
    return [name, f"{bits:.3f}", quality, *(written.get(measure, "-") for measure in names)]


def _shown(metrics: dict[str, float]) -> list[tuple[str, str]]:
    """(name, value as written) of the measures that people compare."""
    found: list[tuple[str, str]] = []
    for start, form in FORMATS.items():
        for name, value in metrics.items():
            if (name == start or name.startswith(f"{start}-")) and not name.endswith("_std"):
                spread = f" ± {form.format(metrics[f'{name}_std'])}" if f"{name}_std" in metrics else ""
                found.append((name, form.format(value) + spread))
    return found


def draw(report: EvaluationReport, target: Path) -> list[Path]:
    """The contact sheet and the usage of codes, beside the report."""
    from mmtok.evaluation.pictures import reconstruction_sheet, usage_picture

    drawn = []
    if report.examples is not None:
        drawn.append(target.with_name(f"{target.stem}-reconstructions.png"))
        reconstruction_sheet(*report.examples).save(drawn[-1])
    if report.counts:
        drawn.append(target.with_name(f"{target.stem}-usage.png"))
        usage_picture(report.counts).save(drawn[-1])
    return drawn


def draw_baselines(report: EvaluationReport, results: Sequence[CodecResult], target: Path) -> Path | None:
    """Inputs, the tokenizer's results and every codec's, a row each, beside the report."""
    from mmtok.evaluation.pictures import contact_sheet

    if report.examples is None:
        return None
    rows = {"input": report.examples[0], _label("tokenizer", report.metrics, report.metrics): report.examples[1]}
    for result in results:
        if result.examples is not None:
            name = result.codec.name + ("" if result.reached else " (lowest)")
            rows[_label(name, {"bits_per_pixel": result.bits_per_pixel}, result.metrics)] = result.examples
    path = target.with_name(f"{target.stem}-baselines.png")
    contact_sheet(rows).save(path)
    return path


def _label(name: str, bits: dict[str, Any], metrics: dict[str, float]) -> str:
    """Of a row of the sheet: means over the whole set."""
    lines = [name, f"{bits['bits_per_pixel']:.3f} bits/pixel", f"{metrics['psnr']:.2f} dB"]
    lines += [f"{measure} {value:.3f}" for measure, value in metrics.items() if measure.startswith("LPIPS-")]
    return "\n".join(lines)
