"""Whether a bundle keeps what it promises: its files, what they say of each other, and what its code computes.

In steps, each only after the one before it: files are as `bundle.json` has them (so that no changed code is run);
their contents agree; and golden inputs give their codes, here and in a process where mmtok is absent. Nothing is
unpickled. To verify a bundle is to run its code: it protects from damage and mistakes, not from malice.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmtok.corpus import PARQUET, TRIE, Corpus
from mmtok.export.bundle import (
    CARD,
    CODEBOOK,
    LICENSE,
    USAGE,
    codebooks,
    preprocessor,
    spec_of,
)  # fmt: skip
from mmtok.export.folder import CONFIG, OURS, PREPROCESSOR, WEIGHTS, read_model
from mmtok.export.golden import FACTS, TENSORS, Golden, differences, ids_sha256, read_golden
from mmtok.export.promises import Broken, Step, look_at, manifest_kept, strangers, where_mmtok_is_absent
from mmtok.export.sealed import MANIFEST
from mmtok.export.sources import SAFE, imports_of
from mmtok.export.text_folder import FILE as TEXT
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.token_spec import TokenSpec
from mmtok.export.verify_text import verify_text
from mmtok.schema import read_json
from mmtok.tokenizers.base import Tokenizer, evaluating

NEEDED = (
    CONFIG, WEIGHTS, TOKEN_SPEC, PREPROCESSOR, CODEBOOK, TENSORS, FACTS, CARD, LICENSE, "modeling_mmtok.py",
    "configuration_mmtok.py", "processing_mmtok.py", "mmtok_parts.py",
)  # fmt: skip


class _Bundle:
    """A folder, and what is read of it once."""

    def __init__(self, folder: Path, run_code: bool) -> None:
        self.folder, self.run_code = folder, run_code
        self.config: dict[str, Any] = {}
        self.spec: TokenSpec
        self.tokenizer: Tokenizer
        self.golden: list[Golden] = []


def verify(path: str | Path, *, say: Callable[[str], None] = lambda line: None, run_code: bool = True) -> list[Broken]:
    """Look at a bundle; the promises that are broken, none where all is well.

    Args:
        path: of the folder.
        say: called with a line for each promise that is kept.
        run_code: whether its own sources are run too, in a process of their own, and its plugins are imported. Needs
            transformers.

    Raises:
        ValueError: the path is no bundle at all.
    """
    folder = Path(path)
    if not folder.is_dir() or not any((folder / name).is_file() for name in (MANIFEST, CONFIG)):
        raise ValueError(f"{path} is no bundle: it has no {MANIFEST}. Write one: mmtok export TOKENIZER OUT.")
    if (folder / TEXT).is_file():
        return verify_text(folder, say)
    results = _RESULTS if run_code else _RESULTS[:-1]
    programs = any(folder.glob("*.pt2"))
    return look_at(
        _Bundle(folder, run_code), (*_STEPS, results), say, lambda promise: promise == "programs" and not programs
    )


def _manifest(bundle: _Bundle) -> Iterator[str]:
    yield from manifest_kept(bundle.folder, NEEDED)


def _strangers(bundle: _Bundle) -> Iterator[str]:
    yield from strangers(bundle.folder)


def _config(bundle: _Bundle) -> Iterator[str]:
    bundle.config = read_json(bundle.folder / CONFIG)
    if bundle.config.get("model_type") != OURS:
        yield f"model_type of {CONFIG} is {bundle.config.get('model_type')!r}, not '{OURS}'"
    for name, place in bundle.config.get("auto_map", {}).items():
        if not (bundle.folder / f"{place.split('.')[0]}.py").is_file():
            yield f"auto_map of {CONFIG} sends {name} to {place}, and there is no such file"
    if "AutoModel" not in bundle.config.get("auto_map", {}):
        yield f"{CONFIG} has no auto_map for AutoModel"
    if bundle.config.get("dtype", "float32") != "float32":
        yield f"{CONFIG} asks for {bundle.config['dtype']}, and codes are promised in float32"


def _weights(bundle: _Bundle) -> Iterator[str]:
    bundle.tokenizer = read_model(bundle.folder, plugins=bundle.run_code)
    for name, value in bundle.tokenizer.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            yield f"{name} holds values that are not finite"


def _spec(bundle: _Bundle) -> Iterator[str]:
    bundle.spec = TokenSpec.read(bundle.folder)
    if json.loads(bundle.spec.to_json()) != bundle.config.get("token_spec"):
        yield f"{TOKEN_SPEC} and the token_spec in {CONFIG} differ"
    ours = ("role", "length", "layout", "header", "rows", "golden_sha256")
    layout: dict[str, Any] = {name: getattr(bundle.spec, name) for name in ours}
    if "disambiguation" in bundle.spec.kinds:
        layout["extra_size"] = bundle.spec.codebook_sizes[-1]
    right = spec_of(bundle.tokenizer, bundle.spec.prefix, layout)
    for name in right.__dataclass_fields__:
        said, is_so = getattr(bundle.spec, name), getattr(right, name)
        if said != is_so:
            yield f"{TOKEN_SPEC} says {name}={said!r}, and the tokenizer has {is_so!r}"


def _preprocessor(bundle: _Bundle) -> Iterator[str]:
    said = read_json(bundle.folder / PREPROCESSOR)
    for name, is_so in preprocessor(bundle.tokenizer).items():
        if said.get(name) != is_so:
            yield f"{PREPROCESSOR} says {name}={said.get(name)!r}, and the tokenizer has {is_so!r}"


def _codebook(bundle: _Bundle) -> Iterator[str]:
    said, are = load_file(bundle.folder / CODEBOOK), codebooks(bundle.tokenizer)
    yield from (f"{CODEBOOK} and the weights do not have the same levels: {name}" for name in said.keys() ^ are.keys())
    for name in said.keys() & are.keys():
        if said[name].shape != are[name].shape or not torch.equal(said[name], are[name]):
            yield f"{name} of {CODEBOOK} is not the codebook in the weights"


def _usage(bundle: _Bundle) -> Iterator[str]:
    if not (bundle.folder / USAGE).is_file():
        return
    levels = read_json(bundle.folder / USAGE)["levels"]
    sizes = [level["size"] for level in levels]
    if sizes != [size for size in bundle.spec.coded if size in sizes]:
        yield f"{USAGE} is of codebooks of {sizes}, and these are {list(bundle.spec.codebook_sizes)}"


def _items(bundle: _Bundle) -> Iterator[str]:
    """That the corpus and its trie are of this tokenizer, and of each other."""
    if not (bundle.folder / PARQUET).is_file():
        return
    items, spec = Corpus.load(bundle.folder / PARQUET), bundle.spec
    kinds = spec.kinds or ("code",) * len(spec.codebook_sizes)
    said = {"sizes": items.sizes, "kinds": items.kinds, "fingerprint": items.fingerprint}
    right = {"sizes": spec.codebook_sizes, "kinds": kinds, "fingerprint": spec.fingerprint}
    yield from (f"{PARQUET} says {name}={said[name]!r}, and {TOKEN_SPEC} {right[name]!r}" for name in said
                if said[name] != right[name])  # fmt: skip
    if read_json(bundle.folder / TRIE)["trie"] != items.trie().nested():
        yield f"{TRIE} is not the trie of the items in {PARQUET}"


def _sources(bundle: _Bundle) -> Iterator[str]:
    """That the sources need nothing which may be absent, and unpickle nothing."""
    for path in sorted(bundle.folder.glob("*.py")):
        for item in imports_of(path.read_text(encoding="utf-8")):
            for module in item.modules:
                if module.startswith(".") or item.deferred:
                    continue
                if module.split(".")[0] not in SAFE:
                    yield f"{path.name}, line {item.node.lineno}, imports {module}, which may be absent"
                if module.split(".")[0] in ("pickle", "marshal", "shelve", "dill"):
                    yield f"{path.name}, line {item.node.lineno}, imports {module}, which can run what it reads"


def _golden(bundle: _Bundle) -> Iterator[str]:
    bundle.golden = read_golden(bundle.folder)
    if not bundle.golden:
        yield f"{FACTS} has no items"
    if ids_sha256(bundle.golden) != bundle.spec.golden_sha256:
        yield f"ids in {TENSORS} are not those {TOKEN_SPEC} was written for"
    with torch.inference_mode(), evaluating(bundle.tokenizer):
        for number, item in enumerate(bundle.golden):
            z, ids, decoded = None, None, None
            if item.x is not None:
                z, ids = bundle.tokenizer.embed(item.x).z, bundle.tokenizer.encode(item.x).ids
            if item.decoded is not None:
                decoded = bundle.tokenizer.decode(item.codes)
            if said := differences(item, ids=ids, z=z, decoded=decoded):
                yield f"of item {number}, with mmtok, {said}"


def _programs(bundle: _Bundle) -> Iterator[str]:
    if any(bundle.folder.glob("*.pt2")):
        from mmtok.export.program import check_programs

        yield from check_programs(bundle.folder, bundle.golden, bundle.spec.downsample)


def _in_transformers(bundle: _Bundle) -> Iterator[str]:
    if importlib.util.find_spec("transformers") is None:
        yield "transformers is not installed here, so it cannot be tried. Install it, or give --no-code"
        return
    plugins = {name.split(".")[0] for name in bundle.config.get("plugins", ())}
    found, wrong = where_mmtok_is_absent(bundle.folder, "model", sorted(plugins), load_file)
    if wrong:
        yield wrong
        return
    for number, item in enumerate(bundle.golden):
        own = {name: found.get(f"{number}.{name}") for name in ("ids", "z", "decoded")}
        if said := differences(item, **own):
            yield f"of item {number}, with its own sources, {said}"


_STEPS: tuple[Step[_Bundle], ...] = (
    (("files", _manifest), ("no strangers", _strangers)),
    (("configuration", _config),),
    (("weights", _weights),),
    (("token spec", _spec),),
    (
        ("preprocessing", _preprocessor),
        ("codebooks", _codebook),
        ("usage", _usage),
        ("sources", _sources),
        ("items", _items),
    ),
)
_RESULTS: Step[_Bundle] = (
    ("golden codes", _golden),
    ("programs", _programs),
    ("transformers", _in_transformers),
)
