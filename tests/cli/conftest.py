"""Recordings in a file, a run over them, and the command in this process."""

import shlex

import pytest

import v1tlearn as v1
from tests.mice import two_mice
from v1tlearn.cli.main import main

SMALL = (
    "--set n_layers=1 --set hidden_channels=2 --set input_kernel=3 --set batch_size=16 "
    "--set random_state=0 --device cpu"
)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with recordings.nc; not to be changed."""
    folder = tmp_path_factory.mktemp("files")
    v1.save_recordings(two_mice(), folder / "recordings.nc")
    return folder


@pytest.fixture(scope="session")
def trials(files):
    return v1.Trials.open(files / "recordings.nc")


@pytest.fixture(scope="session")
def run_folder(files, tmp_path_factory):
    """The folder of a run that came to its end; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    fit = f"fit {files}/recordings.nc --model CNNRegressor {SMALL} --set max_epochs=2 -q"
    assert main(shlex.split(f"{fit} --out {folder}")) == 0
    return folder


@pytest.fixture
def command(capsys):
    """Run a command line; its exit code, and what it wrote to both streams."""

    def run(line):
        capsys.readouterr()
        code = main(shlex.split(str(line)))
        return code, *capsys.readouterr()

    return run
