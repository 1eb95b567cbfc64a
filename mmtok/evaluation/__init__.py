"""Measures of trained tokenizers, each with its definition beside it."""

from mmtok.evaluation.evaluate import evaluate
from mmtok.evaluation.report import EvaluationReport

__all__ = ["EvaluationReport", "evaluate"]
