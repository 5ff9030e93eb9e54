"""Report: the output folder of a sweep as one HTML page."""

from analyses.pages.report.build import Report, report

__all__ = [
    "Report",
    "report",
]
