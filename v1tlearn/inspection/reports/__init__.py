"""One page about a fitted model: what it was fitted to, how good it is, and what it learned."""

from v1tlearn.inspection.reports.making import report
from v1tlearn.inspection.reports.page import Report

__all__ = ["Report", "report"]
