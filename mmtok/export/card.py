"""The model card of a bundle: what it is, the five lines that use it, what was measured, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmtok import __version__
from mmtok.corpus import PARQUET, TRIE
from mmtok.export.provenance import Provenance
from mmtok.export.token_spec import TokenSpec
from mmtok.tokenizers.base import Tokenizer

_INPUT = {"image": "picture.png", "audio": "talk.wav", "vector": "vectors.npy"}
_OUTPUT = {"image": "pictures", "audio": "sounds", "vector": "vectors"}
_GRID = {"image": ", grid=codes.grid"}
_RANGE = {"image": "in [-1, 1]", "audio": "in [-1, 1]", "vector": "(B, F)"}
_PER = {"image": "{} pixels a side", "audio": "{} samples", "vector": "a vector"}


def card(tokenizer: Tokenizer, spec: TokenSpec, part: str, made: Provenance, name: str) -> str:
    """`README.md`, with the front matter that model hubs read."""
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [mmtok, tokenizer, {spec.modality}]",
        "---",
        f"# {name}",
        "",
        f"A discrete tokenizer of {_OUTPUT[spec.modality]}, exported by mmtok {__version__}"
        + (f": its {part} alone." if part != "both" else "."),
        "",
        *_use(spec, part),
        "",
        "## What its ids mean",
        "",
        *_meaning(tokenizer, spec, part),
        "",
        *measured(made.evaluations),
        "## Where it comes from",
        "",
        *origin(spec.fingerprint, made),
        "",
        "## What is promised",
        "",
        "`golden.safetensors` holds inputs, their latents, codes, margins and decoded signals. In float32, one item at "
        "a time, ids are equal wherever the margin is above 1e-4; elsewhere, and in other precisions, some may differ. "
        "`mmtok verify` looks at all of it. The files of Python are Apache-2.0 (LICENSE); what the weights may be used "
        "for is up to who trained them.",
    ]
    return "\n".join(lines) + "\n"


def _use(spec: TokenSpec, part: str) -> Iterator[str]:
    yield "```python"
    yield "from transformers import AutoModel"
    yield 'tok = AutoModel.from_pretrained("PATH/OF/THIS/FOLDER", trust_remote_code=True)'
    if part != "decoder":
        yield f'codes = tok.encode(tok.preprocess("{_INPUT[spec.modality]}"))  # codes.ids: (B, L, T) int64'
        yield 'ids = tok.to_ids(codes, vocab="VOCABULARY")  # made by: mmtok vocab merge'
    if part != "encoder":
        grid, numbers = _GRID.get(spec.modality, ""), _RANGE[spec.modality]
        yield f'x = tok.decode(tok.from_ids(ids, vocab="VOCABULARY"{grid}))  # {numbers}'
    yield "```"


def _meaning(tokenizer: Tokenizer, spec: TokenSpec, part: str) -> Iterator[str]:
    sizes = spec.codebook_sizes
    size = f"{len(sizes)} x {sizes[0]:,}" if len(set(sizes)) == 1 else " + ".join(f"{size:,}" for size in sizes)
    per = _PER[spec.modality].format(spec.downsample)
    yield "| | |"
    yield "|---|---|"
    yield f"| levels x codes | {size} ({spec.quantizer}) |"
    yield f"| a position | {per}, {tokenizer.spec.bits_per_position:.4g} bits |"
    if "disambiguation" in spec.kinds:
        yield f"| last level | numbers items of the same codes; in {PARQUET} and {TRIE}, not in what `encode` gives |"
    if spec.sample_rate:
        yield f"| sample rate | {spec.sample_rate:,} Hz, {spec.sample_rate / spec.downsample:.4g} positions a second |"
    yield f"| layout | {spec.layout.kind}, {spec.layout.order.replace('_', ' ')} |"
    yield f"| names of tokens | `{spec.token(0)}` to `{spec.token(sum(sizes) - 1)}`, `{spec.special('start')}` |"
    for key, value in (tokenizer.describe() if part == "both" else {}).items():
        if key in ("parameters", "receptive field", "latency"):
            yield f"| {key} | {value} |"


def measured(evaluations: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Lines on each evaluation."""
    if not evaluations:
        return
    yield "## What was measured"
    yield ""
    for name, found in evaluations.items():
        numbers = {key: value for key, value in found.get("metrics", {}).items() if isinstance(value, int | float)}
        yield f"`{name}`, {found.get('samples', '?')} items: " + ", ".join(
            f"{key} {value:.4g}" for key, value in numbers.items()
        )
        yield ""
    yield "Definitions, and how the codebooks are used, are in `evaluation.json`."
    yield ""


def origin(fingerprint: str, made: Provenance) -> Iterator[str]:
    """Lines on where weights come from."""
    yield f"- exported from: `{made.source or 'an object in memory'}`"
    if made.step is not None:
        yield f"- trained for {made.step:,} updates by mmtok {made.mmtok or 'of unknown version'}; {made.weights}"
    if made.commit:
        yield f"- exported by the sources at commit `{made.commit}`"
    yield f"- fingerprint of the weights: `{fingerprint}`"
    if made.config:
        yield "- configuration:"
        yield ""
        yield "```json"
        yield json.dumps(made.config, indent=1)
        yield "```"
