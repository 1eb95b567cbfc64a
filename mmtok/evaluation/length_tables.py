"""What codes of several lengths are worth, as lines of tables."""

from __future__ import annotations

from collections.abc import Sequence

from mmtok.evaluation.lengths import Lengths


def rows_by_length(found: Lengths) -> list[str]:
    """Lines of a table: what a length is worth."""
    name = found.quality
    cells = [[found.axis, "tokens", "bits", f"{name} dB"]]
    cells += [
        [f"{row['steps']:.0f}", f"{row['tokens']:,.1f}", f"{row['bits']:,.0f}", f"{row[name]:.2f}"]
        for row in found.by_length
    ]
    return _aligned(cells)


def rows_of_search(found: Lengths) -> list[str]:
    """Lines of a table: what a quality takes."""
    cells = [
        [f"{found.quality} dB", "met", "kept", "tokens", "the same for all", "crossed", "rank correlation", "decodes"]
    ]
    for one in found.searched:
        ranks = "-" if one.rank_correlation != one.rank_correlation else f"{one.rank_correlation:.2f}"
        cells.append(
            [f"{one.target:g}", f"{one.met:.1%}", f"{one.kept:.1f}", f"{one.tokens:,.1f}",
             "-" if one.fixed != one.fixed else f"{one.fixed:.0f}",
             f"{one.crossed:.1%}", ranks, f"{one.decodes:.1f}"]
        )  # fmt: skip
    return _aligned(cells)


def rows_of_prediction(found: Lengths) -> list[str]:
    """Lines of a table: what the predictor makes of it; none without one."""
    told = [(one.target, one.predicted) for one in found.searched if one.predicted]
    if not told:
        return []
    cells = [[f"{found.quality} dB", "met", "kept", "tokens", "decodes"]]
    cells += [[f"{target:g}", f"{one.met:.1%}", f"{one.kept:.1f}", f"{one.tokens:,.1f}", "0"] for target, one in told]
    return [f"predicted, confidence {told[0][1].confidence:g}", *_aligned(cells)]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
