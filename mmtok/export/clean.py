"""What `mmtok verify` runs by its path in a process of its own: a bundle in transformers, where mmtok is absent.

Says nothing of right or wrong: it writes what came out, and the caller, who has the promise, compares.
Usage: python -I clean.py model|text FOLDER RESULT ABSENT,...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


class Without:
    """One of Python's finders of modules, which does not know some packages: as where they are not installed.

    (One that raises would be noticed by who only asks whether there is such a package, as accelerate does.)
    """

    def __init__(self, finder: Any, names: Sequence[str]) -> None:
        self.finder, self.names = finder, set(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Called for every import."""
        return None if name.split(".")[0] in self.names else self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def of_model(bundle: str, result: str) -> None:
    """Write tensors {item.name} that the model of a bundle makes of its golden inputs."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel, AutoProcessor

    torch.set_num_threads(1)
    model = AutoModel.from_pretrained(bundle, trust_remote_code=True).eval()
    AutoProcessor.from_pretrained(bundle, trust_remote_code=True)
    codes_of = type(model).__init__.__globals__["Codes"]
    with open(f"{bundle}/golden.json", encoding="utf-8") as file:
        facts = json.load(file)["items"]
    tensors = load_file(f"{bundle}/golden.safetensors")
    out = {}
    for number, item in enumerate(facts):
        own = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{number}.")}
        if "x" in own:
            out[f"{number}.ids"] = model.encode(own["x"]).ids
            with torch.inference_mode():
                out[f"{number}.z"] = model.tokenizer.embed(own["x"]).z
        if "decoded" in own:
            grid = None if item["grid"] is None else tuple(item["grid"])
            extras = {name[7:]: value for name, value in own.items() if name.startswith("extras.")}
            codes = codes_of(own["ids"], own["lengths"], own["source_size"], grid=grid, extras=extras)
            out[f"{number}.decoded"] = model.decode(codes)
    save_file({name: value.clone().contiguous() for name, value in out.items()}, result)


def of_text(folder: str, result: str) -> None:
    """Write what the tokenizer of a folder makes of its golden texts, read as text and as it reads them by itself, and
    what it makes of their ids.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with open(f"{folder}/golden.json", encoding="utf-8") as file:
        items = json.load(file)["items"]
    out = [
        {
            "ids": tokenizer(item["text"], split_special_tokens=True).input_ids,
            "own": tokenizer(item["text"]).input_ids,
            "back": tokenizer.decode(item["ids"]),
        }
        for item in items
    ]
    with open(result, "w", encoding="utf-8") as file:
        json.dump({"vocabulary": len(tokenizer), "items": out}, file)


COMPUTED = {"model": of_model, "text": of_text}


def main(what: str, folder: str, result: str, absent: str) -> int:
    """Write what comes out, or say in one line what went wrong."""
    sys.meta_path[:] = [Without(finder, absent.split(",")) for finder in sys.meta_path]
    try:
        COMPUTED[what](folder, result)
    except Exception as error:  # whatever the code of a bundle may raise is what is looked for
        text = str(error).strip() or "no message"
        print(f"{type(error).__name__}: {text.splitlines()[0]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
