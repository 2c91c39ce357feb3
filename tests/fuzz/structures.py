"""Changes to what a file says, not to its bytes: another value, type, shape, name or link.

Files that come out are whole files of their format, with checksums that are right.
"""

import csv
import io
import json
import os
import sqlite3
import struct
import tempfile
import warnings
import zipfile
from contextlib import closing, suppress

import h5py
import numpy as np
import yaml
from scipy.io import loadmat, savemat

ODD = (None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e999, -1e999)
ODD += (float("nan"), "", "x", "../x", "/etc/passwd", "0", "1", "nan", "\x00", "\ud800", "é" * 300)
ODD += ([], {}, [[]], [1, 2], ["x"], {"x": 1}, [None], [[1, [2, [3]]]], "A", "float32", "true")
DTYPES = ("u1", "i1", ">i4", "u8", "f2", ">f4", "f8", "c8", "?", "S3", "U3", "M8[s]", "V4")


def change_structure(data, suffix, drawn):
    """Return the bytes of a file that says something else.

    Parameters
    ----------
    data : bytes
        Of an intact file.
    suffix : str
        Of its name, which tells the format.
    drawn : random.Random
    """
    return KNOWN[suffix](data, drawn)


# ------------------------------------------------------------------------------------------- trees


def _places(tree, place=()):
    """All places in a tree of dicts and lists, outermost first."""
    yield place
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from _places(tree[key], (*place, key))


def change_tree(tree, drawn):
    """Change one place of a tree: replace, remove, rename, repeat or nest what is there."""
    place = drawn.choice(list(_places(tree)))
    if not place:
        return drawn.choice(ODD)
    parent = tree
    for key in place[:-1]:
        parent = parent[key]
    key, kind = place[-1], drawn.choice(("odd", "odd", "odd", "remove", "rename", "move", "nest"))
    if kind == "odd":
        parent[key] = drawn.choice(ODD)
    elif kind == "move":  # what stands elsewhere
        other = tree
        for step in drawn.choice(list(_places(tree)))[1:]:
            other = other[step] if isinstance(other, dict | list) and step in _keys(other) else 0
        parent[key] = json.loads(json.dumps(other))
    elif kind == "nest":
        parent[key] = [parent[key]]
    else:
        value = parent.pop(key)
        if kind == "rename" and isinstance(parent, dict):
            parent[drawn.choice(("x", "", "A", f"{key} ", "../x", "__class__"))] = value
    return tree


def _keys(value):
    return value if isinstance(value, dict) else range(len(value))


def _json(data, drawn):
    if drawn.random() < 0.1:  # a name twice
        text = data.decode()
        at = text.index("{") + 1
        name = drawn.choice([key for key in json.loads(data) if isinstance(key, str)])
        return (text[:at] + f"{json.dumps(name)}: {json.dumps(_odd(drawn))}," + text[at:]).encode()
    return json.dumps(change_tree(json.loads(data), drawn)).encode()


def _odd(drawn):
    return drawn.choice(ODD)


def _yaml(data, drawn):
    tree = change_tree(yaml.safe_load(data), drawn)
    return yaml.safe_dump(tree, allow_unicode=False).encode("utf-8", "replace")


def _csv(data, drawn):
    rows = list(csv.reader(io.StringIO(data.decode())))
    row = drawn.choice(rows)
    kind = drawn.choice(("cell", "cell", "cell", "row", "twice", "column", "order"))
    if kind == "cell":
        row[drawn.randrange(len(row))] = str(drawn.choice(ODD)).replace("\ud800", "?")
    elif kind == "row":
        rows.remove(row)
    elif kind == "twice":
        rows.append(list(row))
    elif kind == "column":
        at = drawn.randrange(len(rows[0]))
        rows = [row[:at] + row[at + 1 :] for row in rows]
    else:
        drawn.shuffle(rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


# ------------------------------------------------------------------------------------------ arrays


def change_array(array, drawn):
    """Another array: another dtype, shape, order, or odd values."""
    kind = drawn.choice(("dtype", "cut", "axis", "flat", "turned", "value", "value", "empty"))
    try:
        with np.errstate(all="ignore"):
            if kind == "dtype":
                return array.astype(drawn.choice(DTYPES))
            if kind == "cut" and array.ndim:
                axis = drawn.randrange(array.ndim)
                return np.take(array, range(drawn.randrange(array.shape[axis] + 1)), axis)
            if kind == "axis":
                return array[None] if drawn.random() < 0.5 else array[..., None]
            if kind == "turned":
                return np.asfortranarray(array.T)
            if kind == "value" and array.size:
                value = drawn.choice((np.nan, np.inf, -np.inf, -1, 0, 1e300, 2**31, 1e-320))
                out = np.array(array, dtype=drawn.choice((array.dtype, "f8")))
                out.flat[drawn.randrange(out.size)] = value
                return out
    except (ValueError, TypeError, OverflowError):  # text has no NaN
        pass
    return array.ravel() if kind == "flat" else np.zeros(0, array.dtype)


def _saved(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def _npy(data, drawn):
    array = np.load(io.BytesIO(data), allow_pickle=False)
    return _saved(change_array(array, drawn))


def _zip(data, drawn):
    """One member says something else, is lost, is there twice, or has another name."""
    out = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),  # of names that come twice
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w") as new,
    ):
        members = [(name, old.read(name)) for name in old.namelist()]
        at = drawn.randrange(len(members))
        name, content = members[at]
        kind = drawn.choice(("say", "say", "say", "lose", "twice", "name", "swap"))
        if kind == "say":
            suffix = os.path.splitext(name)[1]
            is_plain = suffix in KNOWN and not (suffix == ".npy" and b"'|O'" in content[:99])
            members[at] = name, KNOWN[suffix](content, drawn) if is_plain else content[:-1]
        elif kind == "lose":
            del members[at]
        elif kind == "name":
            changed = (f"../{name}", f"/{name}", name.upper(), name.replace("/", "\\"), f"{name}.x")
            members[at] = drawn.choice(changed), content
        else:
            members.append((name, drawn.choice(members)[1]))
        for name, content in members:
            new.writestr(name, content)
    return out.getvalue()


def _safetensors(data, drawn):
    (length,) = struct.unpack("<Q", data[:8])
    tree = change_tree(json.loads(data[8 : 8 + length]), drawn)
    header = json.dumps(tree).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _mat(data, drawn):
    if b"\x89HDF" in data[:4096]:
        return _with_file(data, ".mat", _change_hdf5, drawn)
    for _ in range(20):
        with suppress(TypeError, ValueError):  # some of what is drawn has no form there
            return _changed_mat(data, drawn)
    return data


def _changed_mat(data, drawn):
    held = {n: v for n, v in loadmat(io.BytesIO(data)).items() if not n.startswith("__")}
    name = drawn.choice(sorted(held))
    if drawn.random() < 0.2:
        held[drawn.choice(("x", f"{name}_"))] = held.pop(name)
    elif held[name].dtype.kind in "uif":
        changed = change_array(held[name], drawn)
        held[name] = changed if changed.dtype.kind in "uifcbUS" else changed.astype("S")
    else:
        held[name] = drawn.choice((np.zeros((2, 2)), "text", np.array([], object), 3))
    file = io.BytesIO()
    savemat(file, held, do_compression=drawn.random() < 0.5)
    return file.getvalue()


# ------------------------------------------------------------------------------- files of libraries


def _with_file(data, suffix, change, drawn):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"file{suffix}")
        with open(path, "wb") as file:
            file.write(data)
        change(path, drawn)
        with open(path, "rb") as file:
            return file.read()


def _objects(file):
    found = []
    file.visititems(lambda name, one: found.append(one))
    return found


def _change_hdf5(path, drawn):
    with h5py.File(path, "r+") as file:
        one = drawn.choice(_objects(file))
        kinds = ["remove", "link", "attribute", "attribute", "group"]
        kind = drawn.choice(kinds + ["array"] * 6 * isinstance(one, h5py.Dataset))
        if kind == "attribute" and len(one.attrs):
            name = drawn.choice(sorted(one.attrs))
            _set_attribute(one, name, drawn)
            return
        name, parent = one.name, one.parent
        held = one[()] if kind == "array" else None
        attrs = dict(one.attrs) if kind == "array" else {}
        del file[name]
        if kind == "link":
            links = (h5py.SoftLink(name), h5py.SoftLink("/x"), h5py.ExternalLink("x.h5", "/"))
            place = drawn.randrange(5)
            parent[name] = links[place] if place < 3 else file["/"] if place == 3 else parent
        elif kind == "group":
            parent.create_group(name)
        elif kind == "array":
            _put(parent, name, np.asarray(held), drawn)
            for attr, value in attrs.items():
                if attr not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
                    parent[name].attrs[attr] = value


def _set_attribute(one, name, drawn):
    value = drawn.choice((1, -1.5, np.nan, "x", "", np.zeros(3), b"\xff", h5py.Empty("f4"), None))
    del one.attrs[name]
    if value is not None:
        one.attrs[name] = value


def _put(parent, name, array, drawn):
    """Write another array: of other values, of nothing, opaque, of texts of any length, chunked."""
    kind = drawn.choice(("numbers", "numbers", "numbers", "empty", "opaque", "texts", "chunks"))
    plain = array if array.dtype.kind in "biufc" else np.zeros(array.shape, "f4")
    if kind == "empty":
        parent.create_dataset(name, data=h5py.Empty("f4"))
    elif kind == "opaque":
        parent.create_dataset(name, data=np.zeros(plain.shape, "V8"))
    elif kind == "texts":
        parent.create_dataset(
            name, data=np.full(plain.shape, "x", object), dtype=h5py.string_dtype()
        )
    elif kind == "chunks" and plain.ndim:
        wide = (*[64] * (plain.ndim - 1), 2048)
        options = {"maxshape": (None,) * plain.ndim, "chunks": wide, "compression": 1}
        parent.create_dataset(name, data=plain, **options)
    else:
        changed = change_array(plain, drawn)
        parent.create_dataset(
            name, data=changed.astype("S") if changed.dtype.kind in "UM" else changed
        )


# ---------------------------------------------------------------------------------------- studies


def _change_database(path, drawn):
    with (
        closing(sqlite3.connect(path)) as connection,
        suppress(sqlite3.Error),  # some of what is drawn has no form there
        connection,
    ):
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        table = drawn.choice(sorted(row[0] for row in connection.execute(tables)))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column, kind = drawn.choice(columns), drawn.choice(_OF_TABLES)
        rows = [row[0] for row in connection.execute(f"SELECT rowid FROM {table}")]
        if kind in ("value", "said", "moved") and rows:
            _change_cell(connection, table, column, drawn.choice(rows), kind, drawn)
        elif kind == "values":
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (_cell(drawn),))
        elif kind == "row" and rows:
            connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (drawn.choice(rows),))
        elif kind == "twice" and rows:
            others = ", ".join(columns[1:])
            key = max(rows) + 1
            connection.execute(
                f"INSERT OR IGNORE INTO {table} SELECT {key}, {others} FROM {table} LIMIT 1"
            )
        elif kind == "rows":
            connection.execute(f"DELETE FROM {table}")
        elif kind == "table":
            connection.execute(f"DROP TABLE {table}")
        elif kind == "view":  # whose rows are others each time
            connection.execute(f"ALTER TABLE {table} RENAME TO x_{table}")
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM x_{table} LIMIT 1")
        else:
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO x_{column}")


_OF_TABLES = ("value", "value", "value", "said", "said", "said", "moved", "values", "row", "twice")
_OF_TABLES += ("rows", "table", "view", "column")


def _cell(drawn):
    odd = ("", "x", "{", "[1]", "null", "1e999", "9" * 30, None, -1, 10**12, 0.5, b"\x80\x04K\x01.")
    states = ("RUNNING", "WAITING", "COMPLETE", "PRUNED", "FAIL", "FINITE", "NAN", "INF_POS")
    return drawn.choice((*odd, *states, "MINIMIZE", 0, 1, 2, 10**19 // 2, -1e308, "2030-01-01"))


def _change_cell(connection, table, column, row, kind, drawn):
    (held,) = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()
    value = _cell(drawn)
    if kind == "said":  # what JSON in it says
        with suppress(TypeError, ValueError):
            value = json.dumps(change_tree(json.loads(held), drawn))
    elif kind == "moved":
        last = f"SELECT {column} FROM {table} ORDER BY rowid DESC LIMIT 1"
        (value,) = connection.execute(last).fetchone()
    connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?", (value, row))


KNOWN = {
    ".json": _json,
    ".yaml": _yaml,
    ".csv": _csv,
    ".npy": _npy,
    ".npz": _zip,
    ".zip": _zip,
    ".safetensors": _safetensors,
    ".mat": _mat,
    ".nc": lambda data, drawn: _with_file(data, ".nc", _change_hdf5, drawn),
    ".nwb": lambda data, drawn: _with_file(data, ".nwb", _change_hdf5, drawn),
    ".db": lambda data, drawn: _with_file(data, ".db", _change_database, drawn),
}
