"""Early exit: images leave at the block where their class is clear, and nothing after it is computed for them."""

from analyses.early_exit.over_dataset import EarlyExit
from analyses.early_exit.readouts import ClassSpaceReadout, ProbeReadout, Readout, fit_exit_probes
from analyses.early_exit.rules import ExitMeasure, ExitRule, agreement, calibrate, exit_layers, margin
from analyses.early_exit.running import EarlyExitRun, early_exit_logits

__all__ = [
    "ClassSpaceReadout",
    "EarlyExit",
    "EarlyExitRun",
    "ExitMeasure",
    "ExitRule",
    "ProbeReadout",
    "Readout",
    "agreement",
    "calibrate",
    "early_exit_logits",
    "exit_layers",
    "fit_exit_probes",
    "margin",
]
