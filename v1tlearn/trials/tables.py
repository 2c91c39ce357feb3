"""Tables in files for other programs: responses, predictions and scores as CSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from v1tlearn._instead import path_of
from v1tlearn._replacing import replacing
from v1tlearn.trials._averages import join_tables
from v1tlearn.trials.responses import Responses

_ROWS = 2**20  # about how many are in memory at once


def save_table(table: pd.DataFrame | Responses, path: str | os.PathLike) -> None:
    """Write a table for R, pandas, polars or a spreadsheet.

    Parameters
    ----------
    table : DataFrame or Responses
        A table, such as `score_table` and `decoding_table` give; or responses and predictions,
        which are written as `Responses.to_dataframe` has them, one row per trial, frame and neuron,
        some trials at a time: 5,000 trials of 8,000 neurons are 40 million rows.
    path : str or path
        A file that ends in ".csv" or ".parquet"; replaced only when the new one is fully written.
        Parquet keeps types and is some ten times smaller.

    Raises
    ------
    ImportError
        For Parquet, without the extra "parquet".
    TypeError
        If `table` is neither.
    ValueError
        If the path ends in anything else; if there are no rows; for Parquet, if a column holds
        values of several types.

    See Also
    --------
    Responses.to_netcdf : Keeps responses as they are, for `Responses.open`.

    Notes
    -----
    A column of which mice hold numbers and text, such as unit ids, becomes text. An index other
    than a count of the rows is written, too. Texts stay as they are: spreadsheets run a cell that
    begins with "=", "+", "-" or "@", so open tables of mice that strangers named as text there.

    CSV knows no types: a mouse "007" is read as the number 7, and "NaN" as nothing, unless the
    reader is told. Numbers are written with all their digits, and what is missing as nothing.
    ``pandas.read_csv(path, dtype={"mouse": str}, keep_default_na=False, na_values=[""])`` reads
    them as they were; pandas before 3 does so with ``float_precision="round_trip"``, and a few
    numbers a digit off without.

    Examples
    --------
    >>> import pandas as pd
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(1, 2, 10, 2, 2, image_shape=(8, 12)))
    >>> v1.save_table(trials.sel(tier="test").responses, "responses.csv")  # doctest: +SKIP
    >>> pd.read_csv("responses.csv").columns[:3].tolist()  # doctest: +SKIP
    ['mouse', 'trial', 'image_id']
    """
    if not isinstance(table, pd.DataFrame | Responses):
        raise TypeError(
            f"table is a {type(table).__name__}: expected a DataFrame, as score_table gives, or "
            "Responses, as predict gives for Trials. The call is save_table(table, path)."
        )
    path = Path(path_of("path", path, "save_table(table, path)"))
    writers: dict[str, Callable[[Any, Iterator[pd.DataFrame]], None]]
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise ValueError(f"{path} ends in {path.suffix!r}: expected '.csv' or '.parquet'.")
    if not len(table):
        raise ValueError("the table has no rows: expected at least one to write.")
    write = writers[suffix]
    with replacing(path) as new:
        write(new, iter([table]) if isinstance(table, pd.DataFrame) else _parts(table))


def _write_csv(path: Path, parts: Iterator[pd.DataFrame]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = _Lines(file)
        for number, part in enumerate(parts):
            counted = isinstance(part.index, pd.RangeIndex) and part.index.name is None
            part.to_csv(lines, header=number == 0, index=not counted, lineterminator="\r\n")


class _Lines:
    """A file of text whose lines end in a line feed, whatever a writer of CSV ends them in.

    It is to end them in carriage return and line feed, because it quotes texts that hold characters
    of the end of a line, and either alone ends one for those who read it.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


def _write_parquet(path: Path, parts: Iterator[pd.DataFrame]) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"Parquet is written with pyarrow, and {error.name} is not here: install the "
            'extra "parquet", from the folder of v1tlearn with pip install -e ".[parquet]".'
        ) from error

    def converted(part: pd.DataFrame, schema: Any = None) -> Any:
        try:
            return pa.Table.from_pandas(part, schema=schema)
        except pa.ArrowException as error:  # its last argument names the column
            raise ValueError(
                f"{error.args[-1]} ({error.args[0]}): a column of Parquet holds values of one "
                "type, such as numbers or text; convert it, or write CSV."
            ) from error

    first = converted(next(parts))
    with path.open("wb") as file, parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(converted(part, first.schema))


def _parts(responses: Responses) -> Iterator[pd.DataFrame]:
    """Rows of some trials at a time, in columns of one type over all mice."""
    places = {mouse: responses.rows(mouse)[0] for mouse in responses.mice}
    heads = [responses[rows[:1]].to_dataframe() for rows in places.values()]
    head = join_tables(heads)
    types = {name: "str" if _is_mixed(head[name]) else head[name].dtype for name in head}
    start = 0
    for rows, first in zip(places.values(), heads, strict=True):
        step = max(1, _ROWS // len(first))
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            part = responses[some].to_dataframe()
            part["trial"] = some[part["trial"]]
            part = part.reindex(columns=head.columns).astype(types)
            part.index = pd.RangeIndex(start, start + len(part))
            start += len(part)
            yield part


def _is_mixed(values: pd.Series) -> bool:
    return values.dtype == np.dtype(object) and infer_dtype(values).startswith("mixed")
