"""The sources a tokenizer needs, as flat files that find each other without mmtok: `mmtok_quantizers_vq.py` and so on.

transformers copies, of a folder of remote code, the files that `from .name import` names, in one folder and no deeper;
and, of a repository, it asks for every package that is imported outside a `try`, also where a function would never be
called. So each module becomes one file, imports of ours become relative ones, and optional packages stand in a `try`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmtok import __version__
from mmtok.tokenizers.base import Tokenizer

HUB = "mmtok.export.hub"
"""The package of the files that transformers looks for; they keep their names."""
PARTS = f"{HUB}.mmtok_parts"
"""The module of it that is written anew: it imports all others, so that classes register and all files are brought."""
SAFE = {"torch", "numpy", "safetensors", "transformers"} | set(sys.stdlib_module_names)
"""Packages that are there wherever a bundle is loaded."""


class _Import(NamedTuple):
    """One import statement of a module, and where it stands."""

    node: ast.Import | ast.ImportFrom
    modules: tuple[str, ...]
    """What it names, one for each alias of `import a, b`, otherwise one."""
    deferred: bool
    """Whether it does not run when the module is imported, or may fail then."""
    guarded: bool
    """Whether it stands in a `try`."""


def flatten(tokenizer: Tokenizer, entries: Iterable[str]) -> dict[str, str]:
    """Files {name: text} that hold the classes of a tokenizer and what they import.

    Args:
        tokenizer: whose classes, and those of its configuration, are taken; of mmtok and of plugins alike.
        entries: further modules to begin with, as "mmtok.export.hub.modeling_mmtok".

    Raises:
        ValueError: a module cannot be carried: its source is not there, or it needs a package that may be absent.
    """
    own = {module for module in _modules_of(tokenizer) if module.split(".")[0] not in SAFE}
    own.add("mmtok.tokenizers.exported")
    packages = {"mmtok"} | {module.split(".")[0] for module in own}
    texts: dict[str, str] = {}
    waiting = sorted({*own, *entries})
    while waiting:
        module = waiting.pop()
        if module in texts or module == PARTS:
            continue
        texts[module], found = _rewritten(module, packages)
        waiting += found
    files = {file_of(module): text for module, text in texts.items()}
    files[file_of(PARTS)] = _parts([module for module in texts if not module.startswith(HUB)])
    return _own_operators(files)


def file_of(module: str) -> str:
    """The file a module becomes."""
    return (module.removeprefix(f"{HUB}.") if module.startswith(HUB) else module.replace(".", "_")) + ".py"


def imports_of(text: str) -> Iterator[_Import]:
    """Every import statement of a source, with what stands around it."""
    yield from _imports(ast.parse(text), deferred=False, guarded=False)


def _imports(node: ast.AST, *, deferred: bool, guarded: bool) -> Iterator[_Import]:
    if isinstance(node, ast.Import):
        yield _Import(node, tuple(alias.name for alias in node.names), deferred, guarded)
    elif isinstance(node, ast.ImportFrom):
        yield _Import(node, ("." * node.level + (node.module or ""),), deferred, guarded)
    lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    lazy |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    tried = isinstance(node, ast.Try)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, deferred=deferred or lazy or tried, guarded=guarded or tried)


def _modules_of(tokenizer: Tokenizer) -> set[str]:
    """Where the classes of all its parts and configurations are defined."""
    found = {base.__module__ for part in tokenizer.modules() for base in type(part).__mro__}
    waiting: list[Any] = [tokenizer.config, tokenizer.quantizer.config]
    while waiting:
        value = waiting.pop()
        if is_dataclass(value) and not isinstance(value, type):
            found |= {base.__module__ for base in type(value).__mro__}
            waiting += [getattr(value, field.name) for field in fields(value)]
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def _rewritten(module: str, packages: set[str]) -> tuple[str, set[str]]:
    """The text of a module's flat file, and the modules of ours it imports."""
    path, is_package = _source(module)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: set[str] = set()
    for item in sorted(imports_of(text), key=lambda item: -item.node.lineno):
        node, new = item.node, None
        assert node.end_lineno is not None
        if isinstance(node, ast.ImportFrom):
            target = _absolute(module, node, is_package)
            if target.split(".")[0] in packages:
                new = _relative(module, target, node, found)
        elif any(name.split(".")[0] in packages for name in item.modules):
            new = [_relative_whole(module, alias, packages, found) for alias in node.names]
        if new is None and not item.guarded and not {name.split(".")[0] for name in item.modules} <= SAFE:
            if not item.deferred:
                raise ValueError(
                    f"{module}, line {node.lineno}, imports {', '.join(item.modules)}, which may be absent where a "
                    "bundle is loaded. Import it inside the function that needs it."
                )
            own = [line.strip() for line in lines[node.lineno - 1 : node.end_lineno]]
            new = ["try:", *(f"    {line}" for line in own), "finally:", "    pass"]
        if new is not None:
            indent = " " * node.col_offset
            lines[node.lineno - 1 : node.end_lineno] = [indent + line for line in new]
    head = f"# {module} of mmtok {__version__}, flattened." if module.startswith("mmtok") else f"# {module}, flattened."
    return "\n".join([head, *lines]) + "\n", found


def _source(module: str) -> tuple[Path, bool]:
    """The file of a module, and whether it is a package."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"the source of {module} cannot be found, so a bundle cannot carry it.")
    return Path(spec.origin), spec.submodule_search_locations is not None


def _absolute(module: str, node: ast.ImportFrom, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    up = node.level - is_package
    base = module.rsplit(".", up)[0] if up else module
    return f"{base}.{node.module}" if node.module else base


def _relative(module: str, target: str, node: ast.ImportFrom, found: set[str]) -> list[str]:
    """`from mmtok.a import b` as one line a name; b may be a module, or come from one through a package."""
    if target.startswith("transformers"):
        return []
    out = []
    for alias in node.names:
        bound = f" as {alias.asname}" if alias.asname else ""
        if _is_module(f"{target}.{alias.name}"):
            found.add(f"{target}.{alias.name}")
            flat = file_of(f"{target}.{alias.name}").removesuffix(".py")
            out.append(f"from . import {flat} as {alias.asname or alias.name}")
            continue
        origin, name = _origin(module, target, alias.name)
        found.add(origin)
        bound = bound or (f" as {alias.name}" if name != alias.name else "")
        out.append(f"from .{file_of(origin).removesuffix('.py')} import {name}{bound}")
    return out


def _relative_whole(module: str, alias: ast.alias, packages: set[str], found: set[str]) -> str:
    if alias.name.split(".")[0] not in packages:
        return f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
    if not alias.asname:
        raise ValueError(
            f"{module} says 'import {alias.name}', which a bundle cannot carry. Write 'from {alias.name} import ...'."
        )
    found.add(alias.name)
    return f"from . import {file_of(alias.name).removesuffix('.py')} as {alias.asname}"


def _origin(module: str, target: str, name: str) -> tuple[str, str]:
    """The module that defines what `from target import name` gives, through the `__init__` of packages, and its name.

    Those of ours are not carried: they import every quantizer there is.
    """
    path, is_package = _source(target)
    if not is_package or target.split(".")[0] != "mmtok":
        return target, name
    for item in imports_of(path.read_text(encoding="utf-8")):
        if isinstance(item.node, ast.ImportFrom):
            for alias in item.node.names:
                if (alias.asname or alias.name) == name:
                    return _origin(module, _absolute(target, item.node, True), alias.name)
    raise ValueError(
        f"{module} imports {name} from {target}, whose other names a bundle does not carry. Import it from the module "
        "that defines it."
    )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _parts(modules: Iterable[str]) -> str:
    """The file that imports all others, each by a name that every module has, in a form that transformers follows."""
    lines = [f"from .{file_of(module).removesuffix('.py')} import __name__ as _  # noqa: F401" for module in modules]
    said = '"""All files of this bundle: classes register when they are imported, and transformers brings no others."""'
    last = "from .mmtok_tokenizers_exported import build_exported  # noqa: F401"
    return "\n".join([said, "", *sorted(lines), last]) + "\n"


def _own_operators(files: dict[str, str]) -> dict[str, str]:
    """Names of operators of PyTorch are global, and defined once: those of a bundle are its own, beside mmtok's."""
    digest = hashlib.sha256("".join(text for _, text in sorted(files.items())).encode()).hexdigest()[:12]
    return {
        name: text.replace('"mmtok::', f'"mmtok_{digest}::').replace("torch.ops.mmtok.", f"torch.ops.mmtok_{digest}.")
        for name, text in files.items()
    }
