"""The `mmtok` command: one table of verbs, one file a verb, each imported only when it is asked for."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

VERBS: dict[str, str] = {
    "config": "merge, check and print a run's configuration",
    "shards": "build, index, describe and verify shard sets",
    "train": "train a tokenizer, or continue a run",
    "submit": "submit a run, or an array of runs, to SLURM",
    "status": "show what runs are doing",
    "evaluate": "measure a trained tokenizer on a shard set",
    "encode": "turn files into codes",
    "decode": "turn codes back into files",
    "import": "turn a model of another library into a tokenizer",
    "export": "write a tokenizer as a bundle, or as a model of another library",
    "verify": "look whether a bundle keeps what it promises",
    "vocab": "make one vocabulary of a text tokenizer and bundles",
    "tokenize": "turn shards into shards of codes",
    "pack": "lay codes and texts out as ids of a vocabulary, for a data loader",
    "compare": "train, measure and rank quantizers and tokenizers over seeds",
    "report": "write one HTML page of runs or comparisons",
    "wandb-sync": "upload what W&B has written offline, in order",
    "doctor": "say what this machine has, and what each recipe still lacks",
}
"""Verb -> what it does. The module `mmtok.cli.<verb>`, - as _, has `add_arguments(parser)` and `run(args) -> int`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status. A user's mistake is one line, without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = show_warning
    # Threads that spin while they wait for each other starve where another program has part of a core: small networks
    # trained at 13 instead of 114 pictures a second then. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # DDP's C++ warns of find_unused_parameters, which is set on purpose (training/run.py).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        args = parse_arguments(words)
        return int(args.perform(args))
    except KeyboardInterrupt:
        print("mmtok: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`mmtok config ... | head`) has left: nothing more to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("MMTOK_DEBUG"):
            raise
        print(f"mmtok: {describe(error)}", file=sys.stderr)
        return 2
    except (RuntimeError, EOFError) as error:
        # While it waits for a batch, PyTorch puts a vaguer error around the one that tells the signal. A worker that is
        # gone before its batch was taken over leaves the end of a pipe, without a word.
        silent = isinstance(error, EOFError) and not str(error)
        told = "DataLoader worker: Killed while its batch was taken over" if silent else str(error)
        said = lost_worker(str(error.__cause__)) or lost_worker(told)
        if said is None or os.environ.get("MMTOK_DEBUG"):
            raise
        print(f"mmtok: {said}", file=sys.stderr)
        return 2


def show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    """A warning is for the person at the terminal: its text, without the line of code that gave it."""
    print(f"mmtok: note: {message}", file=sys.stderr)


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line, with the verb's `run` in it as `perform`. Only the module of the verb asked for is imported."""
    from mmtok import __version__
    from mmtok.schema import suggest

    parser = argparse.ArgumentParser(prog="mmtok", description="Train discrete tokenizers and hand them to LLMs.")
    parser.add_argument("--version", action="version", version=f"mmtok {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked is not None and asked not in VERBS:
        raise ValueError(f"there is no verb '{asked}'.{suggest(asked, VERBS)}")
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if verb == asked:
            module = importlib.import_module(f"mmtok.cli.{verb.replace('-', '_')}")
            sub.description = module.__doc__
            sub.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(sub)
            sub.set_defaults(perform=module.run)
    args, rest = parser.parse_known_args(list(words))
    if rest:
        # argparse takes a verb's words from before its options only; settings are mostly typed at the end of the line.
        taken = next((vars(args)[name] for name in ("layers", "runs", "files") if name in args), None)
        if taken is None or any(word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        taken.extend(type(taken[0])(word) for word in rest)
    return args


def describe(error: Exception) -> str:
    """One error as one message, with what is missing where a module is."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the Python package '{error.name}' is missing. Install it, or 'pip install mmtok[all]' for everything."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # a write does not know its file
        return f"{error.strerror}. Make room and give the same command again."
    text = str(error)
    if text.startswith("Caught ") and "\nOriginal Traceback" in text:
        # From a loader's worker: torch makes the whole traceback the message. A person needs what stands at its end.
        return text.strip().rsplit(f"{type(error).__name__}: ", 1)[-1]
    return text


def lost_worker(said: str) -> str | None:
    """What the death of a loader's worker means, of PyTorch's words for it; None where they are about something else.

    PyTorch raises it wherever the training process happens to be.
    """
    of_worker = said.startswith("DataLoader worker")
    if "</torch_" in said or (of_worker and "shared memory" in said):  # the name of such a file
        why = "for want of shared memory (/dev/shm), through which batches travel: give the container more of it"
    elif not of_worker:
        return None
    elif "Killed" in said:
        why = "by somebody else, mostly the system for want of memory: ask for more (cluster.memory)"
    else:
        why = "by itself: data.workers=0 shows how"
    first = said.splitlines()[0].rstrip(". ")
    return f"a loader process ended {why}, or lower data.workers. The same command continues. ({first})"
