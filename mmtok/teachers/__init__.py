"""Frozen networks whose features codes may learn to tell: computed once, and kept beside the signals in the shards."""

from mmtok.teachers import pictures, sounds, texts  # noqa: F401, they register
from mmtok.teachers.base import Teacher, open_teacher, teachers

__all__ = ["Teacher", "open_teacher", "teachers"]
