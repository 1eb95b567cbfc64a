"""The bundle: one folder that is a tokenizer, for `mmtok.load`, for transformers, and for who reads it.

Weights as they compute (averaged, norms folded), the contract with a language model (`token_spec.json`), golden inputs,
codebooks, usage and evaluation, a card, the sources, and in `bundle.json` the sha256 of each of these files. It appears
whole or not at all. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmtok import __version__
from mmtok.corpus import PARQUET, TRIE, Corpus
from mmtok.export.card import card
from mmtok.export.drafts import replaced
from mmtok.export.folder import CONFIG, OURS, PREPROCESSOR, WEIGHTS
from mmtok.export.golden import golden, ids_sha256, leaves_called, write_golden
from mmtok.export.preprocessor import preprocessor
from mmtok.export.provenance import EVALUATION, Provenance, published
from mmtok.export.sealed import MANIFEST, VERSION, listed
from mmtok.export.sources import HUB, flatten
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.token_spec import TokenSpec
from mmtok.networks.weight_norm import fold_weight_norm
from mmtok.quantizers.base import Quantizer, quantizers
from mmtok.registry import load_plugins
from mmtok.resources import resource_root
from mmtok.schema import to_plain
from mmtok.tensorfile import write_tensors
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.exported import build_exported, leave_out
from mmtok.tokenizers.predictor import FILE as LENGTHS

CODEBOOK, USAGE, CARD, LICENSE = "codebook.safetensors", "usage.json", "README.md", "LICENSE"
Part = Literal["both", "encoder", "decoder"]
_LARGEST_TABLE = 2**18
"""Codes of a level that are written one by one where no codebook holds them (fsq, lfq)."""


def write_bundle(
    tokenizer: Tokenizer,
    path: str | Path,
    *,
    part: Part = "both",
    prefix: str = "",
    provenance: Provenance | None = None,
    programs: bool = False,
    overwrite: bool = False,
    items: Corpus | None = None,
    **layout: Any,
) -> Path:
    """Write a tokenizer as a bundle.

    Args:
        tokenizer: as trained or imported, on the CPU; not an optimized copy.
        path: of the folder.
        part: leave out the decoder ("encoder") or the encoder ("decoder").
        prefix: of the names of its tokens; by default that of its modality.
        provenance: what is known of its training.
        programs: add `encoder.pt2` and `decoder.pt2`, exported by `torch.export`.
        overwrite: replace a bundle that exists.
        items: coded with it; they go along as item_to_codes.parquet and trie.json.
        **layout: further fields of the `TokenSpec`.

    Returns:
        The folder.

    Raises:
        ValueError: it cannot be exported, and why; or the folder is taken.
        OSError: it cannot be written; nothing is left of it.
    """
    target, made = Path(path), published(provenance or Provenance())
    if not all(part.pointwise for part in tokenizer.quantizer.modules() if isinstance(part, Quantizer)):
        raise ValueError("its codes are of several scales, which a bundle does not hold. Use a quantizer of one grid.")
    if not tokenizer.quantizer.codebook_sizes:
        raise ValueError(
            f"quantizer.name={quantizers.name_of(tokenizer.quantizer.config)} gives no codes, and a bundle is for them."
        )
    if items is not None:
        layout |= of_items(items, tokenizer)
    with replaced(target, MANIFEST, overwrite) as draft:
        if items is not None:
            items.save(draft / PARQUET)
            items.trie().save(draft / TRIE, items)
        _write(tokenizer, draft, part, prefix, made, programs, layout, target.name)
    return target


def _write(
    tokenizer: Tokenizer,
    folder: Path,
    part: Part,
    prefix: str,
    made: Provenance,
    programs: bool,
    layout: Mapping[str, Any],
    name: str,
) -> None:
    origin = tokenizer.fingerprint()
    if tokenizer.length_predictor is not None and tokenizer.length_predictor.fits:
        tokenizer.length_predictor.save(folder / LENGTHS)
    tokenizer = folded(tokenizer, made.plugins)
    tokenizer._origin = origin
    items = golden(tokenizer, part)
    spec = replace(spec_of(tokenizer, prefix, layout), golden_sha256=ids_sha256(items))
    modality = tokenizer.spec.modality
    entries = [f"{HUB}.configuration_mmtok", f"{HUB}.modeling_mmtok"]
    processing = f"{HUB}.processing_{modality}"
    for file, text in flatten(tokenizer, [*entries, processing]).items():
        (folder / file.replace(f"processing_{modality}", "processing_mmtok")).write_text(text, encoding="utf-8")
    write_tensors(codebooks(tokenizer), folder / CODEBOOK, {"format": "pt"})
    if programs:
        from mmtok.export.program import write_programs

        write_programs(tokenizer, folder, items, part)
    if part != "both":
        leave_out(tokenizer, part)
    write_tensors(tokenizer.state_dict(), folder / WEIGHTS, {"format": "pt"})
    write_golden(items, folder)
    (folder / TOKEN_SPEC).write_text(spec.to_json(), encoding="utf-8")
    _json(folder / PREPROCESSOR, preprocessor(tokenizer))
    _json(folder / CONFIG, configuration(tokenizer, spec, part, made))
    _evaluations(folder, made)
    license_file = resource_root(LICENSE)
    shutil.copyfile(license_file, folder / LICENSE)
    (folder / CARD).write_text(card(tokenizer, spec, part, made, name), encoding="utf-8")
    _json(folder / MANIFEST, manifest(folder, spec))


def of_items(items: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """The field of a `TokenSpec` that a corpus decides.

    Raises:
        ValueError: another tokenizer made its codes.
    """
    if items.fingerprint != tokenizer.fingerprint():
        raise ValueError(
            f"the items were coded by the tokenizer {items.fingerprint}, and this is {tokenizer.fingerprint()}."
        )
    return {"extra_size": items.sizes[-1]} if "disambiguation" in items.kinds else {}


def folded(tokenizer: Tokenizer, plugins: tuple[str, ...] = ()) -> Tokenizer:
    """A copy with plain weights and a configuration that says so, built anew: what a bundle will be when it is read.

    Raises:
        ValueError: a network norms weights and has no field `norm` to turn that off.
    """
    plain = fold_weight_norm(tokenizer).cpu()
    blocks = {"tokenizer": to_plain(tokenizer.config), "quantizer": to_plain(tokenizer.quantizer.config)}
    encoder = blocks["tokenizer"].get("encoder")
    if plain.state_dict().keys() != tokenizer.state_dict().keys() and isinstance(encoder, dict) and "norm" in encoder:
        encoder["norm"] = "none"
    load_plugins(plugins)
    with torch.random.fork_rng(devices=[]):
        again = build_exported(blocks)
    state = plain.state_dict()
    if odd := sorted(again.state_dict().keys() ^ state.keys()):
        raise ValueError(
            f"weights of this network cannot be folded: {odd[0]}. Its config needs norm: none for plain ones."
        )
    again.load_state_dict(state)
    return again.requires_grad_(False).eval()


def spec_of(tokenizer: Tokenizer, prefix: str, layout: Mapping[str, Any]) -> TokenSpec:
    """The contract of a tokenizer, but for the golden ids."""
    config = tokenizer.quantizer.config
    extras = ("gain",) if getattr(tokenizer.config, "normalize", "none") != "none" else ()
    side = getattr(tokenizer.config, "image_size", None)
    facts: dict[str, Any] = {
        # Of a row of tokens the size of the picture is nowhere else.
        "source_size": (side, side) if side and tokenizer.spec.positions else (),
        "quantizer": quantizers.name_of(config),
        "shared_codebook": bool(getattr(config, "shared", False)),
        "fingerprint": tokenizer.fingerprint(),
        "extras": extras,
    }
    return TokenSpec.of(tokenizer.spec, prefix=prefix, **(facts | dict(layout)))


def codebooks(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """`level_{i}` (K, D) for each level, as codes are compared; levels of more than 2^18 codes are left out."""
    with torch.inference_mode(), leaves_called(tokenizer.quantizer) as calls:
        shape = (1, 1, tokenizer.config.dim)
        tokenizer.quantizer(torch.zeros(shape), grid=(1, 1))
    tables = {}
    for level, (leaf, _) in enumerate(calls):
        if leaf.codebook_sizes[0] <= _LARGEST_TABLE:
            tables[f"level_{level}"] = leaf.code_table().clone().contiguous()
    return tables


def configuration(tokenizer: Tokenizer, spec: TokenSpec, part: Part, made: Provenance) -> dict[str, Any]:
    """`config.json`: what rebuilds the tokenizer, here and in transformers."""
    return {
        "model_type": OURS,
        "architectures": ["MmtokModel"],
        "auto_map": {"AutoConfig": "configuration_mmtok.MmtokConfig", "AutoModel": "modeling_mmtok.MmtokModel"},
        "dtype": "float32",
        "mmtok_version": __version__,
        "torch_version": torch.__version__,
        "source": made.source,
        "plugins": list(made.plugins),
        "part": part,
        "fingerprint": tokenizer.fingerprint(),
        "tokenizer": to_plain(tokenizer.config),
        "quantizer": to_plain(tokenizer.quantizer.config),
        "token_spec": json.loads(spec.to_json()),
    }


def _evaluations(folder: Path, made: Provenance) -> None:
    """What was measured, where anything was; the usage of the first apart, which is what vocabularies look at."""
    if not made.evaluations:
        return
    _json(folder / EVALUATION, made.evaluations)
    for name, found in made.evaluations.items():
        if found.get("usage"):
            _json(folder / USAGE, {"of": name, "levels": found["usage"]})
            return


def manifest(folder: Path, spec: TokenSpec) -> dict[str, Any]:
    """`bundle.json`: every other file with its sha256 and size."""
    return {"version": VERSION, "mmtok": __version__, "token_spec_sha256": spec.sha256, "files": listed(folder)}


def _json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
