"""Statistics over images: hypothesis tests, effect sizes, bootstrap intervals and corrections."""

from analyses.statistics.corrections import adjust_p_values
from analyses.statistics.effect_sizes import cliffs_delta, cohens_d, rank_biserial
from analyses.statistics.hypothesis_tests import (
    PermutationTest,
    SignedRankTest,
    permutation_test,
    permutation_tests,
    pooled_permutation_test,
    signed_rank_test,
)
from analyses.statistics.intervals import (
    Interval,
    Resampling,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_of_sums,
    bootstrap_ratio,
)
from analyses.statistics.roc import AurocIntervals, auroc, bootstrap_auroc

__all__ = [
    "AurocIntervals",
    "Interval",
    "PermutationTest",
    "Resampling",
    "SignedRankTest",
    "adjust_p_values",
    "auroc",
    "bootstrap_auroc",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_of_sums",
    "bootstrap_ratio",
    "cliffs_delta",
    "cohens_d",
    "permutation_test",
    "permutation_tests",
    "pooled_permutation_test",
    "rank_biserial",
    "signed_rank_test",
]
