"""Classical codecs in the same tables: what JPEG, WebP, ... or Opus make of the held-out set at the arms' rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmtok.compare.files import write_json
from mmtok.compare.plan import Comparison
from mmtok.compare.results import Results
from mmtok.compare.subject import EXAMPLES
from mmtok.evaluation.heldout import HeldOut, Signals


def measure_codecs_of(comparison: Comparison, results: Results) -> None:
    """Write `codecs.json`: a row for each codec and each rate of the arms."""
    place, cell = comparison.cells[0]
    config = cell.config(place)
    samples = int(cell.options.get("reconstruction.samples", 1000))
    held_out = HeldOut(config.data, samples=samples, examples=EXAMPLES)
    sounds = getattr(config.data, "sample_rate", None)
    if sounds:
        rows = list(_sounds(held_out, sounds, rates(results, "bits_per_second")))
    else:
        rows = list(_pictures(held_out, rates(results, "bits_per_pixel")))
    write_json(comparison.folder / "codecs.json", {"rows": rows})


def rates(results: Results, figure: str) -> list[float]:
    """Rates of the arms, each once, to three digits."""
    return sorted({float(f"{one.mean:.3g}") for one in results.means.get(figure, {}).values()})


def _pictures(held_out: HeldOut, wanted: list[float]) -> Iterator[dict[str, Any]]:
    from mmtok.evaluation.baselines import measure_codecs
    from mmtok.evaluation.codecs import available_codecs
    from mmtok.evaluation.comparison import build_instruments

    instruments = build_instruments("auto", "auto", "cpu")
    for rate in wanted:
        for one in measure_codecs(held_out, available_codecs(), rate, instruments=instruments, every=held_out.every):
            plain = one.to_dict()
            yield plain | {"rate": plain["bits_per_pixel"], "unit": "bits/pixel", "beside": rate}


def _sounds(held_out: HeldOut, sample_rate: int, wanted: list[float]) -> Iterator[dict[str, Any]]:
    from mmtok.evaluation.opus import LEAST, Opus, measure_opus

    if Opus.lacks():
        return
    # Below its least rate Opus says more than the arms do: the row tells what it took.
    bitrates = sorted({max(LEAST, round(rate)) for rate in wanted})
    judge_every = max(1, held_out.count // 50)
    for row in measure_opus(Signals(held_out), sample_rate, bitrates=bitrates, judge_every=judge_every):
        yield row | {"rate": row["bits_per_second"], "unit": "bits/s"}
