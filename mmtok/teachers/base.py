"""What a teacher is: members of samples in, features out; and the table of those that are known.

A teacher is named `efflite0`, or `dinov2:FOLDER` where its weights lie in a folder of transformers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmtok.schema import ConfigError, suggest


class Teacher(ABC):
    """Features of one kind of signal."""

    name: ClassVar[str]
    """Of the members it writes: NAME.npy."""
    content: ClassVar[tuple[str, ...]]
    """Extensions of the members it looks at."""
    folder: ClassVar[bool] = False
    """Whether its weights come from a folder, NAME:FOLDER."""

    @abstractmethod
    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        """(extension, content) of each sample -> (F,), (F, T) or (F, rows, columns) float32.

        Raises:
            DecodeError: a signal cannot be read.
        """

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What a reader must know: `about` in words, and `rate`, frames a second, where there are frames."""


teachers: dict[str, Callable[..., Teacher]] = {}
"""Name -> what makes one; those of a folder take it."""


def register_teacher(cls: type[Teacher]) -> type[Teacher]:
    """Enter a class under its name."""
    teachers[cls.name] = cls
    return cls


def open_teacher(text: str) -> Teacher:
    """The teacher of a name, or of NAME:FOLDER.

    Raises:
        ValueError: there is none of that name, or a folder is missing or too much.
        ConfigError: what it needs is not installed, or the folder holds no such model.
    """
    name, _, folder = text.partition(":")
    if name not in teachers:
        raise ValueError(f"there is no teacher '{name}'.{suggest(name, teachers)}")
    wants = getattr(teachers[name], "folder", False)
    if wants and not folder:
        raise ValueError(f"teacher '{name}' needs the folder of its weights: {name}:FOLDER.")
    if folder and not wants:
        raise ValueError(f"teacher '{name}' brings its weights along: leave ':{folder}' out.")
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"there is no folder {folder} with the weights of '{name}'.")
    return teachers[name](Path(folder)) if wants else teachers[name]()


def from_transformers(name: str, folder: Path, kinds: Sequence[str], *parts: str) -> list[Any]:
    """What classes of transformers read from a folder, `AutoModel` say; nothing is fetched.

    Args:
        name: of the teacher.
        folder: of the model.
        kinds: the `model_type`s that it understands.
        parts: the classes, that of the model last.

    Raises:
        ConfigError: transformers is not installed, or the folder holds no such model.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"teacher '{name}' needs transformers. Install it: pip install 'mmtok[llm]'") from error
    try:
        found = [getattr(transformers, part).from_pretrained(folder, local_files_only=True) for part in parts]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no model that transformers reads: {str(error).splitlines()[0]}") from error
    if (kind := found[-1].config.model_type) not in kinds:
        raise ConfigError(f"{folder} holds a model of '{kind}', and teacher '{name}' is one of {', '.join(kinds)}.")
    return found
