"""Labelled, sliceable views of the recordings of several mice."""

from v1tlearn.trials.concat import concat
from v1tlearn.trials.responses import Responses
from v1tlearn.trials.tables import save_table
from v1tlearn.trials.trials import Trials

__all__ = ["Responses", "Trials", "concat", "save_table"]
