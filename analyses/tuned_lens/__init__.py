"""Tuned lens: an affine map per block to the last residual stream, to tell a change of basis from missing classes."""

from analyses.tuned_lens.comparison import compare_lenses
from analyses.tuned_lens.files import read_tuned_lens
from analyses.tuned_lens.fitting import fit_tuned_lens
from analyses.tuned_lens.lens import TunedLens

__all__ = ["TunedLens", "compare_lenses", "fit_tuned_lens", "read_tuned_lens"]
