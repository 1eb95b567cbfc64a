"""The parts of the page, in order: each makes plain HTML and plain data of a story, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from mmtok.report.sections.alarms import alarms
from mmtok.report.sections.curves import curves
from mmtok.report.sections.languages import languages
from mmtok.report.sections.lengths import lengths
from mmtok.report.sections.levels import levels
from mmtok.report.sections.overview import overview
from mmtok.report.sections.pictures import pictures
from mmtok.report.sections.results import results
from mmtok.report.sections.sounds import sounds
from mmtok.report.sections.tokens import tokens
from mmtok.report.sections.tradeoff import tradeoff
from mmtok.report.sections.usage import usage
from mmtok.report.sections.verdict import verdict
from mmtok.report.story import Section, Story

SECTIONS: tuple[Callable[[Story], Section | None], ...] = (
    verdict, tradeoff, levels, lengths, results, languages, pictures, sounds, curves, usage, tokens, alarms, overview,
)  # fmt: skip
"""Verdict first."""
