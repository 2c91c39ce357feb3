"""What the page on the command line shows is what the command takes."""

import errno
import re
import shlex
import sys
from pathlib import Path

import pytest

import v1tlearn as v1
from v1tlearn.cli.main import main
from v1tlearn.cli.models import kinds, make_estimator
from v1tlearn.cli.values import parse_assignments

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "command_line.rst").read_text(encoding="utf-8").replace("\\\n", " ")
SHOWN = re.findall(r"^ +(?:srun )?v1tlearn (\w+ .*)$", PAGE, re.MULTILINE)


def test_there_are_commands_on_the_page():
    assert {line.split()[0] for line in SHOWN} == {"fit", "score", "predict", "report"}


@pytest.mark.parametrize("line", SHOWN)
def test_commands_of_the_page_fail_only_for_want_of_files(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = line.replace("$SLURM_ARRAY_TASK_ID", "3")
    words = shlex.split(line)
    if "--out" in words:
        Path(words[words.index("--out") + 1]).parent.mkdir(parents=True, exist_ok=True)
    code, said = main(words), capsys.readouterr().err
    if words[0] == "fit":
        assert (code, "there is no such file or directory" in said) == (2, True)
    else:  # of a folder that is made above
        assert (code, "no saved model" in said) == (1, True)


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["score", "-h"], ["--version"]])
def test_help_and_version(words, capsys):
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.startswith(("usage: v1tlearn", f"v1tlearn {v1.__version__}"))


@pytest.mark.parametrize("words", [[], ["fit"], ["train"], ["fit", "--mod", "CNNRegressor"]])
def test_usage(words, capsys):
    assert main(words) == 2
    assert "usage: v1tlearn" in capsys.readouterr().err


def test_models_that_can_be_named_take_all_their_presets():
    for name, kind in kinds().items():
        for preset in getattr(kind, "_presets", ()):
            made = make_estimator(name, preset, parse_assignments(["random_state=3"]))
            assert type(made) is kind
            assert made.random_state == 3


def test_a_terminal_that_is_gone_leaves_the_exit_code(tmp_path, monkeypatch):
    class Gone:
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    assert main(["score", str(tmp_path), str(tmp_path / "none.nc")]) == 1
