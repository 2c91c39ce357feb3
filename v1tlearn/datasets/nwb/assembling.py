"""What recordings of images and of movies have in common: arguments, trials and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._values import plain
from v1tlearn.datasets.nwb.finding import as_wanted
from v1tlearn.datasets.nwb.images import given_images
from v1tlearn.datasets.nwb.opening import refuse
from v1tlearn.datasets.nwb.presentations import Presentations
from v1tlearn.datasets.nwb.templates import Asked
from v1tlearn.datasets.nwb.traces import Population

_CHOICES: dict[str, tuple] = {
    "incomplete": ("raise", "nan", "drop"),
    "image_axes": (("height", "width"), ("width", "height")),
    "first_index": (0, 1),
}


def check_choices(known: dict[str, tuple], **given: Any) -> None:
    """Refuse arguments that are none of those known, or of those that both readers have.

    Parameters
    ----------
    known : dict of str to tuple
        Further arguments and what they may be.
    **given : object
        By argument.
    """
    for argument, value in given.items():
        choices = (known | _CHOICES)[argument]
        if plain(value) not in choices or isinstance(value, bool):
            raise ValueError(f"{argument} is {value!r}: expected one of {choices}.")


def check_names(**given: Any) -> None:
    """Refuse what is neither a text nor None.

    Parameters
    ----------
    **given : object
        By argument.

    Raises
    ------
    TypeError
        If one is something else.
    """
    for argument, value in given.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{argument}={value!r}: expected a name, as text.")


def check_seconds(argument: str, value: Any) -> float:
    """Refuse what is no number of seconds from 0 on."""
    seconds = plain(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise ValueError(f"{argument} is {value!r}: expected seconds, 0 or more.")
    return float(seconds)


def as_asked(
    stimulus: str | None,
    templates: str | np.ndarray | None,
    image_column: str | None,
    first_index: int,
    blanks: Sequence[Any],
    where: Mapping[str, Any] | None,
    image_axes: tuple[str, str],
) -> Asked:
    """Put together what the caller says of the presentations.

    Parameters
    ----------
    stimulus, templates, image_column, first_index, blanks, where, image_axes
        As the readers take them.

    Returns
    -------
    Asked

    Raises
    ------
    TypeError, ValueError
        If templates are an array that is none of images, or come with `image_axes`; names are no
        texts, blanks no numbers or texts, or `where` has no labels by column.
    """
    check_names(stimulus=stimulus, image_column=image_column)
    is_turned = image_axes == ("width", "height")
    is_array = templates is not None and not isinstance(templates, str)
    if is_turned and is_array:
        raise ValueError(
            f"image_axes={image_axes!r} came with an array of templates: expected it for stored "
            "images alone. Give templates (images, [channels,] height, width), "
            "np.swapaxes(templates, -1, -2)."
        )
    return Asked(
        stimulus,
        templates if templates is None or isinstance(templates, str) else given_images(templates),
        image_column,
        int(first_index),
        _as_blanks(blanks),
        as_wanted(where, "where"),
        is_turned,
    )


def _as_blanks(blanks: Any) -> tuple[Any, ...]:
    """Values in place of an image, as Python has them; a truth value would be image 0 or 1."""
    if isinstance(blanks, str | bytes | Mapping) or not isinstance(blanks, Iterable):
        raise TypeError(f"blanks={blanks!r}: expected a list of values, [-1] or ['omitted'].")
    values = tuple(plain(blank, "blanks") for blank in blanks)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | Real):
            raise TypeError(f"blanks={blanks!r} holds {value!r}: expected numbers or texts.")
    return values


def check_for_behaviors(behaviors: Any, **given: bool) -> None:
    """Refuse arguments on behaviour where no behaviour is asked for.

    Parameters
    ----------
    behaviors : mapping or None
    **given : bool
        Whether each argument was given.

    Raises
    ------
    ValueError
        If one was, without behaviours.
    """
    names = [argument for argument, is_given in given.items() if is_given]
    if names and not behaviors:
        raise ValueError(
            f"{names[0]} came without behaviors: expected it beside behaviors={{name: series}}."
        )


def behavior_attrs(units: dict[str, str]) -> dict[str, str]:
    """Attributes of behaviour, with the units of its columns."""
    said = "; ".join(f"{column}: {unit}" for column, unit in units.items())
    return {"long_name": "behaviour during the trial", "units": said}


def kept_trials(
    path: Path,
    shown: Presentations,
    recorded: np.ndarray,
    measured: np.ndarray,
    incomplete: str,
    behaviors: list[str],
) -> np.ndarray:
    """Tell which presentations become trials.

    Parameters
    ----------
    path : Path
    shown : Presentations
        One per trial.
    recorded, measured : ndarray of bool (n_trials,)
        Whether responses and behaviour were recorded as a whole.
    incomplete : {"raise", "nan", "drop"}
        What becomes of trials that were not.
    behaviors : list of str
        Columns of behaviour, for errors.

    Returns
    -------
    ndarray of int
    """
    if incomplete == "drop":
        kept = np.flatnonzero(recorded & measured)
        if not len(kept):
            refuse(path, "no trial was recorded as a whole", "some: look at window, and at clocks")
        return kept
    if incomplete == "raise" and not recorded.all():
        at = int(np.argmin(recorded))
        refuse(
            path,
            f"{(~recorded).sum()} of {len(recorded)} windows were not recorded as a whole, the "
            f"first of presentation {shown.rows[at]} of {shown.name}, shown at "
            f"{shown.onsets[at]:g} s",
            "presentations within the recording: pass incomplete='drop', or 'nan'",
        )
    if not measured.all():
        at = int(np.argmin(measured))
        refuse(
            path,
            f"in {(~measured).sum()} of {len(measured)} trials behaviour ({', '.join(behaviors)}) "
            f"is NaN or was not recorded, the first at {shown.onsets[at]:g} s",
            "behaviour in all trials: pass incomplete='drop', which leaves the others out",
        )
    return np.arange(len(recorded))


def response_attrs(found: list[Population]) -> dict[str, Any]:
    """Attributes of responses."""
    units = {one.units for one in found}
    return {
        "long_name": "response",
        "units": units.pop()
        if len(units) == 1
        else "; ".join(f"{o.name}: {o.units}" for o in found),
    }


def attrs_of(nwb: Any, name: str | None) -> dict[str, Any]:
    """Attributes of a recording: its animal, called by a name or as in the file, and session."""
    subject = None if nwb.subject is None else nwb.subject.subject_id
    attrs = {
        "mouse_id": str(name or subject or nwb.identifier),
        "session": str(nwb.session_id or nwb.identifier),
        "session_start_time": nwb.session_start_time.isoformat(),
    }
    if nwb.subject is not None and nwb.subject.species:
        attrs["species"] = str(nwb.subject.species)
    return attrs
