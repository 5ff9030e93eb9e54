"""One pass over a dataset for any number of analyses, resumable, in one process or many."""

from analyses.sweep.accuracy import Accuracy
from analyses.sweep.output import SweepOutput, read_sweep
from analyses.sweep.run import sweep

__all__ = [
    "Accuracy",
    "SweepOutput",
    "read_sweep",
    "sweep",
]
