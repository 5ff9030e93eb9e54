"""The base of dataset-level analyses: hook points, a state that adds up over batches, a tidy table."""

from analyses.analysis.base import Analysis, AnalysisBatch, analysis_name
from analyses.analysis.correctness import correctness_tables
from analyses.analysis.groups import TOKEN_GROUPS, count_ranks, sum_by_group, token_groups
from analyses.analysis.null_control import compare_with_null
from analyses.analysis.tables import (
    GroupSums,
    adjust_over_layers,
    before_after_rows,
    difference_rows,
    object_minus_context,
    ratio_rows,
)

__all__ = [
    "TOKEN_GROUPS",
    "Analysis",
    "AnalysisBatch",
    "GroupSums",
    "adjust_over_layers",
    "analysis_name",
    "before_after_rows",
    "compare_with_null",
    "correctness_tables",
    "count_ranks",
    "difference_rows",
    "object_minus_context",
    "ratio_rows",
    "sum_by_group",
    "token_groups",
]
