"""What the page on the command line shows is what the command takes."""

import re
import shlex
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
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "there is no such file or directory" in said or "no saved model" in said


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
