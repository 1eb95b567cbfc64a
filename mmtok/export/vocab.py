"""One vocabulary of a text tokenizer and any number of bundles: written (`merge`), and held against a model (`check`).

The text tokenizer is taken as `AutoTokenizer` gives it and not as its files say: some classes build themselves anew and
add specials that no file has, whose ids would be the first codes' then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmtok.export.drafts import refuse_taken, replaced
from mmtok.export.embed_init import CODEBOOK, How, ModelTable, Rows, embed_init, write_embed_init
from mmtok.export.embed_init import FILE as EMBED_INIT
from mmtok.export.header import DIGITS
from mmtok.export.sealed import refuse_changed
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab_map import FILE as MAP
from mmtok.export.vocab_map import Vocabulary

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
KIND = "vocabulary"
OWN = (".json", ".jinja", ".txt", ".model")
"""Endings of what tokenizers of transformers save."""
OF_CLASS = (
    "added_tokens_decoder",
    "auto_map",
    "is_local",
    "local_files_only",
    "add_bos_token",
    "add_eos_token",
    "backend",
)
"""What a tokenizer_config.json says for the class that the base had, or beside tokenizer.json, which holds it."""
PROBES = (
    "The quick brown fox jumps over 16*16 lazy dogs.",
    "  naïve café, Bác Hồ\n\ttabs; 日本語 😀 x=3.14e-5  ",
)
"""What the merged tokenizer must turn into the same ids as the one it was made of."""


def merge(
    base: str | Path,
    bundles: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path | None = None,
    hidden: int | None = None,
    how: How = "mean",
    seed: int = 0,
    overwrite: bool = False,
) -> Vocabulary:
    """Write one vocabulary as a folder, whole or not at all.

    In it are `tokenizer.json`, `tokenizer_config.json`, `vocab_map.json` and, where the width of a model is known,
    `embed_init.safetensors`.

    Args:
        base: folder of any text tokenizer with a fast class that `AutoTokenizer` loads.
        bundles: folders with a token_spec.json, in the order of their blocks.
        out: the folder.
        model: folder of the model that will use it: its table is at least kept in size, and rows begin like its own.
        hidden: width of a model that does not exist yet.
        how: rows of codes begin at the mean of the others, or have the geometry of the codebook around it.
        seed: of the noise and the projections.
        overwrite: replace a vocabulary that exists.

    Raises:
        ValueError: the folder is taken, a bundle was changed, ids of the base overlap or leave gaps, names exist
            already, prefixes are the same, or the model has fewer rows than the base has ids; says which.
    """
    tokenizer = load_base(base)
    backend = tokenizer.backend_tokenizer
    before = [tokenizer(probe).input_ids for probe in PROBES]
    names = backend.get_vocab(with_added_tokens=True)
    for bundle in bundles:
        refuse_changed(bundle, (TOKEN_SPEC, CODEBOOK) if how == "codebook" else (TOKEN_SPEC,))
    specs = [TokenSpec.read(bundle) for bundle in bundles]
    table = ModelTable.read(model) if model is not None else None
    text = _count(names, base)
    if table is not None and table.rows < text:
        raise ValueError(f"{model} has {table.rows} rows, and {base} {text} ids: it is no tokenizer of this model.")
    sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
    rows = table.rows if table is not None else 0
    vocabulary = Vocabulary.arrange(text, specs, digits=_digits(backend), rows=rows, base_sha256=sha256)
    _add(backend, vocabulary, names)
    refuse_others(Path(out), overwrite)
    with replaced(Path(out), MAP, overwrite, KIND) as folder:
        if known := _known_rows(table, hidden, text):
            write_embed_init(embed_init(vocabulary, bundles, *known, how=how, seed=seed), folder, vocabulary, how)
        _save(tokenizer, folder)
        again = load_base(folder)
        if before != [again(probe).input_ids for probe in PROBES]:
            raise ValueError(
                f"{type(tokenizer).__name__} of {base} gives other ids once it is saved; it cannot be a base."
            )
        (folder / MAP).write_text(vocabulary.to_json(), encoding="utf-8")
    return vocabulary


def refuse_others(folder: Path, overwrite: bool) -> None:
    """Refuse to put a vocabulary where anything else stands, also beside an older one: a model saved there, say.

    Raises:
        ValueError: names what stands there.
    """
    refuse_taken(folder, MAP, overwrite, KIND)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() or path.name == "config.json" or (path.suffix not in OWN and path.name != EMBED_INIT):
            raise ValueError(f"{folder} holds {path.name} beside its {KIND}, which would be lost. Give another folder.")


def _known_rows(table: ModelTable | None, hidden: int | None, text: int) -> tuple[Rows, Rows | None] | None:
    """Of the embedding, and of the head where that is another; None where not even the width is known."""
    if table is None:
        return None if hidden is None else (Rows.fresh(hidden), None)
    head = table.output()
    return Rows.of(table.input()[:text]), None if head is None else Rows.of(head[:text])


def check(folder: str | Path, model: str | Path | None = None) -> Vocabulary:
    """Hold a merged vocabulary against its own files, and against the model that is to use it.

    Raises:
        ValueError: names the first file or number that differs, and what would be right.
    """
    from tokenizers import Tokenizer

    folder = Path(folder)
    vocabulary = Vocabulary.read(folder)
    if not (folder / TOKENIZER).is_file():
        raise ValueError(f"there is no {folder / TOKENIZER}. Make it anew: mmtok vocab merge.")
    names = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab(with_added_tokens=True)
    wanted = {name: number for number, name in vocabulary.names()}
    _compare(names, wanted, str(folder / TOKENIZER))
    if len(names) != vocabulary.text + len(wanted):
        extra = len(names) - vocabulary.text - len(wanted)
        raise ValueError(
            f"{folder / TOKENIZER} has {extra} tokens that {MAP} does not know. Merge anew with them in it."
        )
    if (folder / EMBED_INIT).is_file():
        _check_rows(folder / EMBED_INIT, vocabulary)
    if model is not None:
        table = ModelTable.read(model)
        if table.rows != vocabulary.size:
            raise ValueError(
                f"the embedding of {model} has {table.rows} rows, and the vocabulary {vocabulary.size}. "
                f"Widen it: mmtok.export.embed_init.install(model, '{folder}')."
            )
    return vocabulary


def load_base(folder: str | Path) -> Any:
    """A text tokenizer of transformers from a folder.

    Raises:
        ValueError: there is none, or only one without a `tokenizers` backend.
    """
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise ValueError(
            f"there is no folder {folder}. Give that of a text tokenizer: hf download MODEL --local-dir DIR."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        has = (Path(folder) / TOKENIZER).is_file()
        what = f"its {TOKENIZER} cannot be read ({error})" if has else f"it has no {TOKENIZER}"
        raise ValueError(
            f"{folder} holds no text tokenizer that transformers loads: {what}. Give the folder of one, which "
            "AutoTokenizer loads: hf download MODEL --local-dir DIR."
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"{folder} is a {type(tokenizer).__name__}, which has no fast class, so no {TOKENIZER}.")
    return tokenizer


def _count(names: dict[str, int], base: str | Path) -> int:
    """Ids of the base, its added tokens included: those of `model.vocab` alone are fewer.

    Raises:
        ValueError: some ids are used twice or not at all.
    """
    taken = sorted(names.values())
    if len(set(taken)) < len(taken):
        twice = next(number for number, following in pairwise(taken) if number == following)
        both = [name for name, number in names.items() if number == twice]
        raise ValueError(f"{base}: tokens {both} have one id {twice}: an overlap.")
    if taken[-1] + 1 != len(taken):
        free = next(place for place, number in enumerate(taken) if number != place)
        raise ValueError(
            f"{base}: no token has the id {free}, and {taken[-1]} is the last: a gap. Name the missing ids."
        )
    return len(taken)


def _digits(backend: Any) -> tuple[int, ...]:
    """The base's own ids of 0 to 9 and *, if each is one token that is that sign alone."""
    found = [backend.token_to_id(sign) for sign in DIGITS]
    alone = all(
        number is not None and backend.decode([number], skip_special_tokens=False).strip() == sign
        for sign, number in zip(DIGITS, found, strict=True)
    )
    return tuple(found) if alone and len(set(found)) == len(DIGITS) else ()


def _add(backend: Any, vocabulary: Vocabulary, names: dict[str, int]) -> None:
    """Give the text tokenizer the names of specials and codes, each at its id."""
    from tokenizers import AddedToken

    wanted = {name: number for number, name in vocabulary.names()}
    if taken := next((name for name in wanted if name in names), None):
        raise ValueError(f"the base has a token {taken} already, with id {names[taken]}. Export with another --prefix.")
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in wanted])
    _compare(backend.get_vocab(with_added_tokens=True), wanted, TOKENIZER)


def _compare(names: dict[str, int], wanted: dict[str, int], where: str) -> None:
    for name, number in wanted.items():
        if names.get(name) != number:
            raise ValueError(f"{where} gives {name} the id {names.get(name)}, and {MAP} {number}.")


def _save(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer so that any version of transformers takes tokenizer.json as it stands."""
    tokenizer.save_pretrained(str(folder))
    path = folder / TOKENIZER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in OF_CLASS:
        config.pop(name, None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_rows(path: Path, vocabulary: Vocabulary) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        rows = file.get_slice("embedding").get_shape()[0]
    if rows != vocabulary.size - vocabulary.text:
        raise ValueError(f"{path} has {rows} rows for {vocabulary.size - vocabulary.text} ids. Make it anew.")
