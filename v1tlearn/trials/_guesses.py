"""What was meant by a name that is not there: habits from xarray, pandas and typing errors."""

from __future__ import annotations

from collections.abc import Iterable

from v1tlearn._guesses import guess

# Names of xarray and pandas, and what is written here instead; {one} is `trials["A"]`.
_INSTEAD = {
    "isel": "trials are selected by number with {view}[indices], neurons by label with "
    "{view}.sel(neuron=...)",
    "iloc": "trials are selected by number with {view}[indices]",
    "loc": "trials and neurons are selected by label with {view}.sel(tier=..., neuron=...)",
    "query": "trials and neurons are selected by label with {view}.sel(tier=..., neuron=...)",
    "where": "select with {view}[mask] or {view}.sel(...); where() of one mouse is {one}.where",
    "drop_sel": "select with {view}[mask] or {view}.sel(...)",
    "head": "the first trials are {view}[:5]",
    "tail": "the last trials are {view}[-5:]",
    "sample": "draw trials with {view}[rng.choice(len({view}), 5, replace=False)]",
    "groupby": "group with {view}.image_ids, .tiers or .mouse_ids, one label per trial; groupby() "
    "of one mouse is {one}.groupby",
    "sortby": "sort with {view}[numpy.argsort(labels)]",
    "dims": "the axis is the trials, {view}.shape; of one mouse {one}.dims",
    "sizes": "counts are len({view}) and {view}.n_neurons; of one mouse {one}.sizes",
    "coords": "labels are {view}.mouse_ids, .image_ids, .tiers and {view}.neuron_ids(mouse); of "
    "one mouse {one}.coords",
    "indexes": "of one mouse they are {one}.indexes",
    "index": "labels are {view}.mouse_ids, .image_ids and .tiers",
    "attrs": "attributes, such as units, are those of one mouse: {one}.attrs",
    "to_xarray": "one mouse as an xarray object is {one}",
    "to_dataset": "one mouse as an xarray object is {one}",
    "to_dataarray": "one mouse as an xarray object is {one}",
    "transpose": "of one mouse it is {one}.transpose",
    "plot": "of one mouse it is {one}.plot",
    "tier": "the tier of every trial is {view}.tiers; to select: {view}.sel(tier=...)",
    "mouse_id": "the mouse of every trial is {view}.mouse_ids; to select: {view}.sel(mouse_id=...)",
    "image_id": "the image of every trial is {view}.image_ids",
    "image": "the image of every trial is {view}.image_ids",
    "trial_id": "it is a label of one mouse: {one}.trial_id",
    "neuron": "unit ids of one mouse are {view}.neuron_ids(mouse); to select: "
    "{view}.sel(neuron=...)",
    "neurons": "unit ids of one mouse are {view}.neuron_ids(mouse); to select: "
    "{view}.sel(neuron=...)",
    "position": "positions of one mouse's neurons are {view}.positions(mouse)",
    "area": "it is a label of one mouse: {one}.area; to select: {view}.sel(area=...)",
    "layer": "it is a label of one mouse: {one}.layer; to select: {view}.sel(layer=...)",
}

_OF_TRIALS = {
    "data_vars": "data are trials.stimuli, trials.behaviors and trials.responses; of one mouse "
    "{one}.data_vars",
    "variables": "data are trials.stimuli, trials.behaviors and trials.responses; of one mouse "
    "{one}.variables",
    "columns": "names of behaviour columns are trials.behavior_names(mouse)",
    "values": 'numbers are read with trials.get("stimuli", mouse) or numpy.asarray('
    "trials.responses)",
    "data": 'numbers are read with trials.get("stimuli", mouse) or numpy.asarray(trials.responses)',
    "to_numpy": 'numbers are read with trials.get("stimuli", mouse) or numpy.asarray('
    "trials.responses)",
    "to_dataframe": "responses become a table with trials.responses.to_dataframe()",
    "to_dict": "trials.recordings is a DataTree with one child per mouse",
    "mean": "means of responses are trials.responses.mean(dim)",
    "load": "data are read when they are used; all of them at once by trials.recordings.load()",
    "compute": "data are read when they are used; all of them at once by trials.recordings.load()",
    "images": "images are trials.stimuli",
    "stimulus": "images are trials.stimuli",
    "behavior": "behaviour is trials.behaviors",
    "behaviour": "behaviour is trials.behaviors",
    "behaviours": "behaviour is trials.behaviors",
    "response": "responses are trials.responses",
    "X": "give the trials themselves: fit(trials)",
    "y": "responses are trials.responses",
}

_OF_RESPONSES = {
    "values": "numbers are numpy.asarray(responses), one vector per trial, or "
    "responses.get(mouse), the matrix of one mouse",
    "data": "numbers are numpy.asarray(responses), one vector per trial, or responses.get(mouse), "
    "the matrix of one mouse",
    "to_numpy": "numbers are numpy.asarray(responses), one vector per trial, or "
    "responses.get(mouse), the matrix of one mouse",
    "columns": "unit ids of one mouse are responses.neuron_ids(mouse)",
    "std": 'of one mouse it is responses["A"].std("trial")',
    "var": 'of one mouse it is responses["A"].var("trial")',
    "sum": 'of one mouse it is responses["A"].sum("trial")',
    "max": 'of one mouse it is responses["A"].max("trial")',
    "min": 'of one mouse it is responses["A"].min("trial")',
    "median": 'of one mouse it is responses["A"].median("trial")',
    "compute": "read once with responses.load()",
    "stimuli": "stimuli belong to trials: trials.stimuli",
    "behaviors": "behaviour belongs to trials: trials.behaviors",
    "recordings": "recordings belong to trials: trials.recordings",
}


def attribute(kind: str, view: str, name: str, mice: Iterable[str]) -> str:
    """Message about an attribute that is not there."""
    message = f"{kind!r} object has no attribute {name!r}"
    if name.startswith("_"):
        return message
    mice = list(mice)
    one = f'{view}["{mice[0] if mice else "A"}"]'
    own = {"trials": _OF_TRIALS, "responses": _OF_RESPONSES}.get(view, {})
    if name in mice:
        return f'{message}: the mouse is {view}["{name}"]'
    instead = own.get(name) or _INSTEAD.get(name)
    return f"{message}: {instead.format(view=view, one=one)}" if instead else message


def keyword(name: str, known: Iterable[str]) -> str:
    """Message about a keyword of `sel` that is no label."""
    known = list(known)
    plural = {"mice": "mouse_id", "mouse": "mouse_id", "unit": "neuron", "units": "neuron"}
    close = [plural[name]] if name in plural else guess(name, known)[:1]
    return (
        f"sel() got an unexpected keyword {name!r}"
        + (f", did you mean {close[0]!r}?" if close else ":")
        + f" These trials can be selected by {', '.join(known)}."
    )


def mouse(name: str, view: str, mice: list[str], tiers: Iterable[str]) -> str:
    """Message about a mouse that is not there."""
    message = f"unknown mouse {name!r}: the recordings are of {mice}."
    if name in tiers:
        return f"{message} The trials of that tier are {view}.sel(tier={name!r})."
    variables = ("stimuli", "behaviors", "responses", "expected_responses")
    if view == "trials" and name in variables:
        return f"{message} The {name} of all mice are trials.{name}."
    instead = ({} if view == "responses" else _OF_TRIALS) | _INSTEAD
    if name in instead:
        hint = instead[name].format(view=view, one=f'{view}["{mice[0]}"]')
        return f"{message} {hint[0].upper()}{hint[1:]}."
    close = guess(name, mice)[:1]
    return f"{message} Did you mean {close[0]!r}?" if close else message
