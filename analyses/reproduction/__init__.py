"""The paper's experiments on its models, or a rehearsal on the embedded ones: what to run, its cost, its claims."""

from analyses.reproduction.claims import CLAIMS, Claim, Finding, check_claims
from analyses.reproduction.cost import Cost, measure_cost
from analyses.reproduction.run import Outcome, estimate_study, run_study
from analyses.reproduction.studies import MODELS, Study, paper_studies, rehearsal_studies

__all__ = [
    "CLAIMS",
    "MODELS",
    "Claim",
    "Cost",
    "Finding",
    "Outcome",
    "Study",
    "check_claims",
    "estimate_study",
    "measure_cost",
    "paper_studies",
    "rehearsal_studies",
    "run_study",
]
