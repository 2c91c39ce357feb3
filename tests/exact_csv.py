"""Tables of CSV with every digit, which pandas before 3 gives when asked alone."""

import functools

import pandas as pd

_EXACT = {"float_precision": "round_trip"} if pd.__version__.startswith("2.") else {}
read_csv = functools.partial(pd.read_csv, **_EXACT)
