"""A compiler for tests of when the core is compiled."""

import pytest
import torch


class Compiler:
    """Notes every pass of what it compiled, which computes as before, and may be told to fail."""

    def __init__(self):
        self.passes, self.error = [], None

    def __call__(self, function, **options):
        def fast(*args):
            if self.error is not None:
                raise self.error
            self.passes.append(options)
            return function(*args)

        return fast


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that is found, and compiles nothing."""
    compiler = Compiler()
    (tmp_path / "c++").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch, "compile", compiler)
    return compiler
