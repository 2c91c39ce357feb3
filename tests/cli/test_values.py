"""Values on a command line and in files are data."""

import json

import pytest

from v1tlearn.cli.errors import UsageError
from v1tlearn.cli.values import parse_assignments, read_parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.001", 0.001),
        ("1e-3", 0.001),
        ("16", 16),
        ("true", True),
        ("null", None),
        ("[36, 64]", [36, 64]),
        ('{"a": 1}', {"a": 1}),
        ('"auto"', "auto"),
        ("auto", "auto"),
        ("cuda:1", "cuda:1"),
        ("/data/dino-v2", "/data/dino-v2"),
        ("./a.b", "./a.b"),
    ],
)
def test_literals_and_plain_words(text, value):
    found = parse_assignments([f"name={text}"])["name"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "expected NAME=VALUE"),
        ("=1", "expected NAME=VALUE"),
        ("a b=1", "expected NAME=VALUE"),
        ("lr=", "expected JSON"),
        ("lr=NaN", "expected JSON"),
        ("lr=Infinity", "expected JSON"),
        ("lr=.5", "expected JSON"),
        ("lr=1_000", "expected JSON"),
        ("lr=(1, 2)", "expected JSON"),
        ("lr=__import__('os').system('true')", "expected JSON"),
        ('lr={"a": 1, "a": 2}', "expected JSON"),
        ("lr=True", "write true"),
        ("lr=None", "write null"),
    ],
)
def test_what_is_neither_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parse_assignments([text])


def test_a_name_comes_once():
    assert parse_assignments(["a=1", 'b="a=1"']) == {"a": 1, "b": "a=1"}
    with pytest.raises(UsageError, match="gives a twice"):
        parse_assignments(["a=1", "a=1"])


def test_files(tmp_path, run_folder):
    values = {"lr": 0.1, "betas": [0.9, 0.99], "device": "cpu"}
    (tmp_path / "p.json").write_text(json.dumps(values))
    (tmp_path / "p.yaml").write_text("lr: 0.1\nbetas: [0.9, 0.99]\ndevice: cpu\n")
    for name in ("p.json", "p.yaml"):
        assert read_parameters(tmp_path / name) == values
    found = read_parameters(run_folder / "run.json")
    assert (found["max_epochs"], found["input_kernel"]) == (2, 3)


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("p.json", '{"lr": NaN}', ValueError, "is no JSON of parameters"),
        ("p.json", '{"lr": 1, "lr": 2}', ValueError, "a name comes twice"),
        ("p.json", "{", ValueError, "is no JSON of parameters"),
        ("p.json", "[1]", UsageError, "holds a list"),
        ("p.json", " " * (2**20 + 1), ValueError, "expected at most"),
        ("p.yaml", "!!python/object/apply:os.system [true]", ValueError, "expected a mapping"),
        ("p.toml", "lr = 1", UsageError, r"expected a file \.json"),
    ],
)
def test_files_that_are_refused(tmp_path, name, text, error, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=said):
        read_parameters(tmp_path / name)
