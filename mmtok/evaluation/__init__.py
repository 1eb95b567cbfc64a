"""Measures of trained tokenizers, each with its definition beside it."""

from mmtok.evaluation.evaluate import EvaluationReport, evaluate

__all__ = ["EvaluationReport", "evaluate"]
