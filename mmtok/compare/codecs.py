"""Classical codecs in the same tables: what JPEG, WebP, ... or Opus make of the held-out set at the arms' rates.

Beside texts stand vocabularies and compressors, which are exact and have the rates they have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from mmtok.compare.files import write_json
from mmtok.compare.measures import ReconstructionConfig, options_of
from mmtok.compare.plan import Comparison
from mmtok.compare.results import Results
from mmtok.compare.subject import EXAMPLES
from mmtok.evaluation.heldout import HeldOut, Signals


def measure_codecs_of(comparison: Comparison, results: Results) -> None:
    """Write `codecs.json`: a row for each codec and each rate of the arms."""
    place, cell = comparison.cells[0]
    config = cell.config(place)
    asked = ReconstructionConfig(**options_of("reconstruction", cell.options))
    held_out = HeldOut(config.data, samples=asked.samples, examples=EXAMPLES)
    rows = CODECS[config.data.gives](held_out, results, asked)
    write_json(comparison.folder / "codecs.json", {"rows": list(rows)})


def rates(results: Results, figure: str) -> list[float]:
    """Rates of the arms, each once, to three digits."""
    return sorted({float(f"{one.mean:.3g}") for one in results.means.get(figure, {}).values()})


def _pictures(held_out: HeldOut, results: Results, asked: ReconstructionConfig) -> Iterator[dict[str, Any]]:
    from mmtok.evaluation.baselines import measure_codecs
    from mmtok.evaluation.codecs import available_codecs
    from mmtok.evaluation.comparison import build_instruments

    instruments = build_instruments(asked.features, "auto", "cpu")
    for rate in rates(results, "bits_per_pixel"):
        for one in measure_codecs(held_out, available_codecs(), rate, instruments=instruments, every=held_out.every):
            plain = one.to_dict()
            yield plain | {"rate": plain["bits_per_pixel"], "unit": "bits/pixel", "beside": rate}


def _sounds(held_out: HeldOut, results: Results, asked: ReconstructionConfig) -> Iterator[dict[str, Any]]:
    from mmtok.evaluation.opus import LEAST, Opus, measure_opus

    if lacks := Opus.lacks():
        warnings.warn(f"Opus is not measured: {lacks}", stacklevel=2)
        return
    # Below its least rate Opus says more than the arms do: the row tells what it took.
    beside = {max(LEAST, round(rate)): rate for rate in rates(results, "bits_per_second")}
    judge_every = asked.every(held_out.count)
    sample_rate = held_out.data.sample_rate  # type: ignore[attr-defined]
    for row in measure_opus(Signals(held_out), sample_rate, bitrates=sorted(beside), judge_every=judge_every):
        rate = beside[row["asked_bits_per_second"]]
        told = {"rate": row["bits_per_second"], "unit": "bits/s", "beside": rate, "reached": rate >= LEAST}
        yield row | told


def _texts(held_out: HeldOut, results: Results, asked: ReconstructionConfig) -> Iterator[dict[str, Any]]:
    from mmtok.evaluation.text_baselines import measure_compressors, measure_vocabularies, sizes_beside, texts_of

    texts = texts_of(Signals(held_out))
    books = {tuple(level["size"] for level in row["usage"]) for row in results.rows}
    sizes = {size for one in books for size in sizes_beside(one)}
    for rows in (measure_compressors(texts), measure_vocabularies(texts, held_out.data, sizes)):
        for row in rows:
            yield row | {"rate": row["metrics"]["bits_per_byte"], "unit": "bits/byte"}


CODECS: dict[str, Callable[[HeldOut, Results, ReconstructionConfig], Iterator[dict[str, Any]]]] = {
    "image": _pictures,
    "audio": _sounds,
    "text": _texts,
}
"""What data give -> the codecs of it."""
