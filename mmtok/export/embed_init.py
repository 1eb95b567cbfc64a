"""How the rows of a model's embedding begin that a vocabulary adds: `embed_init.safetensors`.

`mean` is what transformers does: the mean of the trained rows, with a little noise. `codebook` keeps the geometry of
codes: each level's vectors are standardised, turned into the model's width by a random orthogonal projection, and
scaled so that their mean and their length (in the mean square) are those of the trained rows. Which is better has not
been measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab_map import Vocabulary
from mmtok.schema import read_json
from mmtok.tensorfile import write_tensors

FILE = "embed_init.safetensors"
CODEBOOK = "codebook.safetensors"
"""Of a bundle: `level_{i}` (codes, dim)."""
How = Literal["mean", "codebook"]
INPUTS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight",
          "shared.weight")  # fmt: skip
"""How the embeddings of language models end."""
OUTPUTS = ("lm_head.weight", "embed_out.weight")
STD = 0.02
"""Of a model that does not exist yet: what most are initialised with."""


@dataclass(frozen=True)
class Rows:
    """What is known of trained rows."""

    mean: Tensor
    """(hidden,) float32."""
    std: Tensor
    """(hidden,) float32."""
    norm: float
    """Root of the mean square length of a row."""
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, table: Tensor) -> Rows:
        """Of a table (rows, hidden)."""
        rows = table.float()
        return cls(rows.mean(0), rows.std(0), float(rows.square().sum(1).mean().sqrt()), table.dtype)

    @classmethod
    def fresh(cls, hidden: int) -> Rows:
        """Of a model that is not trained."""
        return cls(torch.zeros(hidden), torch.full((hidden,), STD), STD * hidden**0.5)


@dataclass(frozen=True)
class ModelTable:
    """The embedding of a model in a folder."""

    folder: Path
    rows: int
    """Ids that it takes."""
    places: dict[str, Path]
    """Embedding and head -> the file each is in; empty without weights."""

    @classmethod
    def read(cls, path: str | Path) -> ModelTable:
        """From its config.json and the headers of its safetensors files.

        Raises:
            ValueError: it has no config.json with a vocab_size, or weights of another size.
        """
        from safetensors import safe_open

        folder = Path(path)
        config = read_json(folder / "config.json", "Give the folder of a model.")
        rows = _vocab_size(config)
        if rows is None:
            raise ValueError(f"{folder / 'config.json'} has no vocab_size: it is of no language model.")
        shapes: dict[str, list[int]] = {}
        places = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118, it is no dict
                    if name.endswith(INPUTS + OUTPUTS):
                        shapes[name] = tensors.get_slice(name).get_shape()
                        places[name] = file
        places = {name: file for name, file in places.items() if shapes[name][0] == rows}
        if shapes and not places:
            name, shape = next(iter(shapes.items()))
            raise ValueError(f"{folder}: {name} has {shape[0]} rows, and its config.json says {rows}.")
        return cls(folder, rows, places)

    def input(self) -> Tensor:
        """(rows, hidden) its embedding.

        Raises:
            ValueError: no tensor is known to be it.
        """
        found = self._find(INPUTS)
        if found is None:
            raise ValueError(f"{self.folder} has no safetensors file with an embedding. Give --hidden N instead.")
        return found

    def output(self) -> Tensor | None:
        """(rows, hidden) its head, where that is not the embedding."""
        return self._find(OUTPUTS)

    def _find(self, endings: tuple[str, ...]) -> Tensor | None:
        from safetensors import safe_open

        for ending in endings:
            for name, file in self.places.items():
                if name.endswith(ending):
                    with safe_open(str(file), framework="pt") as tensors:
                        return tensors.get_tensor(name)
        return None


def _vocab_size(config: dict[str, Any]) -> int | None:
    """Of a language model, or of that inside a model of several modalities."""
    inner = [config.get(name) for name in ("text_config", "llm_config", "language_config", "decoder")]
    found = [part["vocab_size"] for part in (config, *inner) if isinstance(part, dict) and "vocab_size" in part]
    return int(found[0]) if found else None


def embed_init(
    vocabulary: Vocabulary,
    bundles: Sequence[str | Path],
    rows: Rows,
    head: Rows | None = None,
    *,
    how: How = "mean",
    seed: int = 0,
) -> dict[str, Tensor]:
    """The rows that a vocabulary adds to a model.

    Args:
        vocabulary: of these bundles.
        bundles: folders; `codebook` reads their codebooks.
        rows: of the embedding that grows.
        head: of the head, where it is not the embedding.
        how: see the top of this file.
        seed: of the noise and the projections.

    Returns:
        `embedding` (size - text, hidden): row i is of id text + i. `head`, the same for a head of its own, always by
        the mean: all new ids are equally likely then. `own_head.{prefix}` (codes, hidden) for layouts own_head.

    Raises:
        ValueError: a bundle has no codebook for one of its levels.
    """
    generator = torch.Generator().manual_seed(seed)
    added = vocabulary.size - vocabulary.text
    tensors = {"embedding": _mean(rows, added, generator)}
    if head is not None:
        tensors["head"] = _mean(head, added, generator)
    for spec, place, bundle in zip(vocabulary.specs, vocabulary.places, bundles, strict=True):
        if how == "mean" and place.blocks:
            continue
        codes = _mean(rows, sum(spec.codebook_sizes), generator)
        if how == "codebook":
            codes = torch.cat([_geometry(level, rows, generator) for level in _codebooks(Path(bundle), spec)])
        if place.blocks:
            first = place.blocks[0] - vocabulary.text
            tensors["embedding"][first : first + len(codes)] = codes
        else:
            tensors[f"own_head.{spec.prefix}"] = codes
    return tensors


def write_embed_init(tensors: dict[str, Tensor], folder: Path, vocabulary: Vocabulary, how: How) -> None:
    """Write what `embed_init` gives; the header says of which ids the rows are."""
    header = {"first_id": str(vocabulary.text), "size": str(vocabulary.size), "how": how}
    write_tensors(tensors, folder / FILE, header)


def install(model: Any, folder: str | Path) -> None:
    """Widen a model of transformers to a merged vocabulary, and begin its new rows as `embed_init.safetensors` says.

    Args:
        model: with the embedding of the base; changed in place.
        folder: of the vocabulary.

    Raises:
        ValueError: the vocabulary has no embed_init.safetensors, or one of another width.
    """
    from safetensors.torch import load_file

    vocabulary = Vocabulary.read(folder)
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"there is no {path}. Merge with --model DIR or --hidden N.")
    tensors = load_file(path)
    hidden = model.get_input_embeddings().weight.shape[1]
    if tensors["embedding"].shape[1] != hidden:
        raise ValueError(f"{path} is of width {tensors['embedding'].shape[1]}, and the model of {hidden}.")
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    into, out = model.get_input_embeddings().weight, model.get_output_embeddings()
    with torch.no_grad():
        into[vocabulary.text :] = tensors["embedding"].to(into)
        if out is not None and out.weight is not into:
            out.weight[vocabulary.text :] = tensors.get("head", tensors["embedding"]).to(out.weight)


def _mean(rows: Rows, count: int, generator: torch.Generator) -> Tensor:
    """(count, hidden) around the mean. The noise is of a variance 1e-9 of the rows', as in transformers."""
    noise = torch.randn(count, len(rows.mean), generator=generator)
    return (rows.mean + noise * rows.std * 1e-9**0.5).to(rows.dtype)


def _geometry(codes: Tensor, rows: Rows, generator: torch.Generator) -> Tensor:
    """(K, D) code vectors -> (K, hidden) rows, whose distances are those of the standardised codes, scaled."""
    spread = codes.std(0, correction=0)
    codes = (codes - codes.mean(0)) / torch.where(spread > 0, spread, 1.0)
    hidden, dim = len(rows.mean), codes.shape[1]
    square = torch.randn(max(hidden, dim), min(hidden, dim), generator=generator)
    basis = torch.linalg.qr(square).Q  # (larger, smaller), its columns orthonormal
    turned = codes @ (basis.mT if hidden >= dim else basis)
    # Mean m and turned rows u of mean 0: |m + s u|^2 is |m|^2 + s^2 |u|^2 on average, and shall be norm^2.
    free = max(rows.norm**2 - float(rows.mean.square().sum()), 0.0)
    scale = (free / max(float(turned.square().sum(1).mean()), 1e-12)) ** 0.5
    return (rows.mean + scale * turned).to(rows.dtype)


def _codebooks(bundle: Path, spec: TokenSpec) -> list[Tensor]:
    """(K, D) float32 of each level."""
    from safetensors.torch import load_file

    path = bundle / CODEBOOK
    tables = load_file(path) if path.is_file() else {}
    levels = []
    for level, size in enumerate(spec.coded):
        table = tables.get(f"level_{level}")
        if table is None or table.ndim != 2 or len(table) != size:
            raise ValueError(f"{bundle} has no {CODEBOOK} with level_{level} of {size} codes. Give --init mean.")
        levels.append(table.float())
    return levels
