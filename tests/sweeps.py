"""Sweeps over many cases, of which a few are quick tests and the others slow ones."""

import pytest


def quick(cases, *places):
    """Give cases for ``pytest.mark.parametrize``: all are slow but those at these places.

    A tuple is one case of several arguments.
    """
    cases = list(cases)
    kept = {range(len(cases))[place] for place in places}  # fails where there is no such place
    return [case if place in kept else _slow(case) for place, case in enumerate(cases)]


def _slow(case):
    values = case if isinstance(case, tuple) else [case]
    return pytest.param(*values, marks=pytest.mark.slow)
