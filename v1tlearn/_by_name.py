"""Parameters of estimators: what is said where a name or a value is none of those they have."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    Options,
    validate_parameter_constraints,
)

from v1tlearn._guesses import PARAMETER_HABITS, VALUE_HABITS, did_you_mean, guess, in_words
from v1tlearn._values import plain

if TYPE_CHECKING:  # the class that has the parameters comes after this one
    from sklearn.base import BaseEstimator as _Beside
else:
    _Beside = object


class ByName(_Beside):
    """Constructor, `set_params` and the check of values, with errors that guess what was meant.

    For classes that come before scikit-learn's `BaseEstimator`. The constructor stays the one the
    class writes or `dataclass` generates, with its signature: here the names are only looked at
    before it runs.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def __new__(cls, *args: Any, **params: Any) -> Self:
        """Make the object, unless the call cannot be one of this class."""
        _check_constructor(cls, args, params)
        return super().__new__(cls)

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params
            By name; ``estimator__name`` for those of an estimator inside.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter; what it was meant to be is guessed.
        """
        known = list(self.get_params(deep=False))
        for name in params:
            if name.partition("__")[0] not in known:
                raise ValueError(no_parameter(type(self), name, known))
        return super().set_params(**params)

    def _plain_params(self) -> dict[str, Any]:
        """Give what is computed with: Python's numbers, where those of NumPy would wrap around."""
        return {name: plain(value, name) for name, value in self.get_params(deep=False).items()}

    def _validate_params(self) -> None:
        """Check the values, as scikit-learn does, and guess what an option was meant to be."""
        owner = type(self).__name__
        for name, value in self._plain_params().items():
            allowed = self._parameter_constraints.get(name, "no_validation")
            if isinstance(value, bool) and not {"boolean", "verbose"} & {*map(str, allowed)}:
                value = repr(value)  # no number is meant by it
            if isinstance(value, Real) and not isinstance(value, int | float):
                value = repr(value)  # a fraction, with which neither NumPy nor torch computes
            try:
                validate_parameter_constraints({name: allowed}, {name: value}, caller_name=owner)
            except InvalidParameterError as error:
                hint = _value_hint(type(self), name, value, allowed)
                raise InvalidParameterError(f"{error}{hint}") from None


def parameter_names(kind: type[Any]) -> list[str]:
    """Names that the constructor of a class takes.

    Parameters
    ----------
    kind : type

    Returns
    -------
    list of str
        In the order of the signature.
    """
    return list(inspect.signature(kind.__init__).parameters)[1:]


def no_parameter(kind: type, name: str, known: Iterable[str]) -> str:
    """Say that a class has no such parameter, which it may have meant, and which there are.

    Parameters
    ----------
    kind : type
    name : str
        The unknown one; what stands behind ``__`` may be known.
    known : iterable of str

    Returns
    -------
    str
    """
    known = list(known)
    others = [other.__name__ for other in public_kinds() if name in parameter_names(other)]
    inner = name.rpartition("__")[2]
    found = guess(name, [k for k in known if k in PARAMETER_HABITS.get(name, ())], PARAMETER_HABITS)
    if not found and not others:  # a name that others have is no slip of the keys
        found = guess(inner, known, PARAMETER_HABITS)
    said = f"{kind.__name__} has no parameter {name!r}{did_you_mean(found)}"
    if others:
        said += f" {name} is a parameter of {in_words(others)}."
        if "estimator" in known:
            said += (
                f" Give it to the model inside: {kind.__name__}({others[0]}({name}=...)), or set "
                f"estimator__{name}."
            )
    return f"{said} {_listed(known)}"


def public_kinds() -> list[type[ByName]]:
    """Classes with such parameters that users know, by name."""
    package = sys.modules[__name__.partition(".")[0]]
    kinds = {kind.__name__: kind for kind in _subclasses(ByName)}
    return [k for name, k in sorted(kinds.items()) if getattr(package, name, None) is k]


def _subclasses(kind: type[ByName]) -> Iterator[type[ByName]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _check_constructor(kind: type[Any], args: tuple[Any, ...], params: dict[str, Any]) -> None:
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return  # of a subclass that takes anything
    known = [p.name for p in parameters]
    for name in params:
        if name not in known:
            raise TypeError(no_parameter(kind, name, known))
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if len(args) <= len(by_position):
        return
    owner, extra = kind.__name__, args[len(by_position)]
    if isinstance(extra, str) and extra in getattr(kind, "_presets", ()):
        raise TypeError(f"{extra!r} is a preset: write {owner}.from_preset({extra!r}).")
    if hasattr(extra, "shape") or hasattr(extra, "dims") or hasattr(extra, "children"):
        raise TypeError(
            f"{owner} was given a {type(extra).__name__}: parameters make a model, and data go to "
            f"fit: {owner}().fit(trials)."
        )
    raise TypeError(
        f"{owner} takes {f'only {in_words(by_position)}' if by_position else 'no parameter'} by "
        f"position, but {len(args)} came"
        + (f": name them, for instance {owner}({known[-1]}=...). " if known else ". ")
        + _listed(known)
    )


def _listed(known: list[str]) -> str:
    return f"The parameters are {', '.join(sorted(known))}." if known else "It has no parameters."


def _value_hint(kind: type, name: str, value: Any, allowed: Any) -> str:
    """What to write in place of a value that is not allowed, where that can be guessed."""
    options = _options(allowed)
    if value is None or value is False:
        return " Did you mean 'none'?" if "none" in options else ""
    if isinstance(value, str):
        names = f" Names go into a list: {name}=[{value!r}]." if list in allowed else ""
        if found := guess(value, options, VALUE_HABITS):
            return f" Did you mean {' or '.join(map(repr, found))}?{names}"
        others = [
            other.__name__
            for other in public_kinds()
            if value in _options(other._parameter_constraints.get(name, ()))
        ]
        if others:
            return f" {value!r} is for {in_words(others)}."
        if any(isinstance(a, Interval) for a in allowed) and _is_number(value):
            return f" Give a number, without quotation marks: {name}={value}."
        return names
    whole = any(isinstance(a, Interval) and a.type is Integral for a in allowed)
    number = isinstance(value, Real) and not isinstance(value, Integral)
    if whole and number and float(value).is_integer():
        return f" Give a whole number: {name}={int(value)}."
    return ""


def _options(allowed: Any) -> list[str]:
    """Words among the values that are allowed."""
    if isinstance(allowed, str):
        return []
    options = [o for a in allowed if isinstance(a, Options) for o in a.options]
    return sorted(o for o in options if isinstance(o, str))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
