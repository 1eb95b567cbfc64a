"""What the README, the docs and the verbs tell people to type is there, and what they show is what happens."""

import re
import shlex
from pathlib import Path

import pytest

from mmtok.cli import VERBS, main, parse_arguments
from mmtok.config import load_any
from mmtok.layers import split_arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "slurm" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERB_FILES = [ROOT / "mmtok" / "cli" / f"{verb.replace('-', '_')}.py" for verb in VERBS]
SNIPPETS = ("README.md", "docs/audio.md", "docs/image.md", "docs/quantizers.md")
"""Pages whose Python runs as it stands."""


def fences(path, language=r"\w*"):
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands():
    """(words, the error shown below them or None) of each command line in a block of a page, or in a verb's help."""
    for path in [*PAGES, *VERB_FILES]:
        blocks = fences(path) if path.suffix == ".md" else [path.read_text(encoding="utf-8").split('"""')[1]]
        for line, after in (
            pair for block in blocks for pair in zip(lines(block), [*lines(block)[1:], ""], strict=True)
        ):
            if re.match(r"(\$ )?mmtok [a-z]", line.strip()):
                words = shlex.split(re.split(r" [>|] | && ", line.strip().removeprefix("$ "))[0], comments=True)
                error = after if after.startswith("mmtok: ") else None
                yield pytest.param(words[1:], error, id=f"{path.relative_to(ROOT)}: {shlex.join(words)}")


def lines(block):
    return block.splitlines()


@pytest.mark.parametrize(("words", "error"), commands())
def test_a_command_that_is_shown_is_understood(words, error, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if error is not None:
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(error)
        return
    args = parse_arguments(words)
    layers, settings = split_arguments(getattr(args, "layers", []))
    if layers and not layers[0].startswith("runs/"):
        load_any(layers, [word for word in settings if not word.startswith("cluster.")])


def test_every_verb_that_is_mentioned_exists():
    for path in PAGES:
        for verb in re.findall(r"`mmtok ([a-z-]+)", path.read_text(encoding="utf-8")):
            assert verb in VERBS, f"{path.name}: mmtok {verb}"


def test_every_file_that_is_linked_is_there():
    missing = []
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            if not (path.parent / target).exists():
                missing.append(f"{path.relative_to(ROOT)} -> {target}")
    assert not missing


def test_every_module_that_is_run_is_there():
    for path in PAGES:
        for name in re.findall(r"python -m ([a-z_.]+[a-z])", path.read_text(encoding="utf-8")):
            module = ROOT.joinpath(*name.split("."))
            found = module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
            assert found, f"{path.name}: python -m {name}"


@pytest.mark.parametrize("page", SNIPPETS)
def test_the_python_of_a_page_runs(page, run, photograph, codec, talk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in ("mine", "x"):
        Path("runs", name).symlink_to(run)
    Path("runs", "speech").symlink_to(codec)
    Path("talk.flac").symlink_to(talk)
    for name in ("cat.jpg", "photo.jpg"):
        Path(name).symlink_to(photograph)
    snippets = fences(ROOT / page, "python")
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), {})
