"""What a signature says of a value: whether it can be meant at all."""

import inspect
from numbers import Integral, Real

import numpy as np

KINDS = {"int", "float", "bool", "str", "None"}


def kinds_of(function):
    """Types of the arguments that take plain values alone, by name."""
    out = {}
    for name, parameter in inspect.signature(function).parameters.items():
        told = {kind.strip() for kind in str(parameter.annotation).split("|")}
        if told <= KINDS:
            out[name] = told
    return out


def cannot_be(kinds, value):
    """Whether a value is of none of these types, or no number where only numbers are."""
    if isinstance(value, np.ma.core.MaskedConstant):
        return True
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if value is None:
        return "None" not in kinds
    if isinstance(value, bool | np.bool_):
        return "bool" not in kinds
    if isinstance(value, str):
        return "str" not in kinds
    if isinstance(value, Integral):
        return not kinds & {"int", "float"} or (value < -1 and "float" not in kinds)
    if isinstance(value, Real):
        return "float" not in kinds or bool(np.isnan(float(value)))
    return True
