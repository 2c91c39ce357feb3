"""A compiler for tests of when the core is compiled."""

import pytest
import torch


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that is found; what it compiles computes as before, and notes every pass."""
    passes = []

    def compile_(function, **options):
        def fast(*args):
            passes.append(options)
            return function(*args)

        return fast

    found = tmp_path / "c++"
    found.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch, "compile", compile_)
    return passes
