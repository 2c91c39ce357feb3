"""Every place of the package that writes, and where its interruptions are tried.

What a new one writes goes through `replacing`, `append` or another function of `_replacing`, it
becomes one of `tests/interruptions/`, and a line here.
"""

import ast
from pathlib import Path

import pytest

import v1tlearn

PACKAGE = Path(v1tlearn.__file__).parent

# By the names that ``python -m tests.interruptions`` has for them.
WRITERS = {
    "cli/evaluating.py": "v1tlearn score",
    "datasets/download.py": "download",
    "datasets/netcdf.py": "recordings, recordings in a row, responses, predictions, "
    "cache of Sensorium",
    "datasets/sensorium/cache.py": "cache of Sensorium",
    "datasets/sensorium/write.py": "folder of Sensorium, zip of Sensorium",
    "datasets/store.py": "recordings, responses, predictions",
    "datasets/checksums.py": "recordings in a row",
    "estimators/_cards.py": "model with a card",
    "estimators/_checkpoints.py": "states of a fit, v1tlearn fit",
    "estimators/_feature_store.py": "cache of features",
    "estimators/_files.py": "model, ensemble, states of a fit",
    "estimators/hub.py": "registry, fetched model",
    "inspection/reports/page.py": "report",
    "search/hyperband.py": "study",
    "tracking/csv_log.py": "log as CSV",
    "tracking/run_folder.py": "run folder",
    "tracking/tensorboard_log.py": "log for TensorBoard",
    "trials/tables.py": "table as CSV, table as Parquet",
}
# What writes no file that a path leads to.
IN_MEMORY = {
    "inspection/reports/_pictures.py": "savefig",  # into bytes
}

_OF_MODES = ("open", "ZipFile", "Dataset", "File", "memmap")
_OF_MODULES = [("np", "save"), ("torch", "save"), ("json", "dump"), ("pickle", "dump")]
_ALWAYS = {
    "append", "copyfile", "copyfileobj", "copytree", "make_folder", "makedirs", "mkdir", "mkdtemp",
    "mkstemp", "move", "ParquetWriter", "NamedTemporaryFile", "replacing", "save_file", "savefig",
    "savetxt", "savez", "SummaryWriter", "symlink_to", "TemporaryDirectory", "to_csv", "to_excel",
    "to_feather", "to_hdf", "to_html", "to_json", "to_parquet", "to_pickle", "touch", "truncate",
    "write_bytes", "write_text",
}  # fmt: skip


def writes(path):
    """Names of the calls in a file that write files."""
    found = set()
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        of = getattr(getattr(call.func, "value", None), "id", "")
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        texts = [one.value for one in given if isinstance(one, ast.Constant)]
        modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwxabt+")]
        is_of_list = name == "append" and isinstance(call.func, ast.Attribute)
        if (name in _ALWAYS and not is_of_list) or (of, name) in _OF_MODULES:
            found.add(name)
        if name in _OF_MODES and any(set(mode) & set("wxa+") for mode in modes):
            found.add(name)
    return found


@pytest.fixture(scope="module")
def found():
    return {
        path.relative_to(PACKAGE).as_posix(): calls
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "_replacing.py" and (calls := writes(path))
    }


def test_whatever_writes_files_is_known(found):
    assert set(found) == {*WRITERS, *IN_MEMORY}
    for name, call in IN_MEMORY.items():
        assert found[name] == {call}


def test_folders_are_made_where_they_last(found):
    """`mkdir` is for what lies in a folder that is renamed at the end."""
    made = {name for name, calls in found.items() if {"mkdir", "makedirs"} & calls}
    assert made == {"datasets/sensorium/write.py", "estimators/hub.py"}
