"""Builds what is released, installs it in an empty environment, and uses it there.

``python -m tests.smoke`` builds the source distribution, and of that the wheel, which so has what
its users get; ``python -m tests.smoke dist/*`` takes what is there. Dependencies are those that pip
finds, or, with ``--here``, those of this environment.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
USE = Path(__file__).parent / "use.py"
BUILD = """
import sys
from setuptools import build_meta
build_meta.build_sdist(sys.argv[1], {"--global-option": "--quiet"})
"""


def run(*command, cwd):
    """Run a command that has to succeed, without what this process knows of paths."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=environment)


def wheel_of(source, folder, *, here):
    """Build the wheel of a source distribution, as pip does."""
    options = ["-q", "--no-deps", *(["--no-build-isolation"] if here else [])]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_out(wheel, folder, *, here):
    """Install a wheel in an empty environment, and use it there."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = ["-m", "pip", "install", "-q", *(["--no-deps"] if here else [])]
    run(python, *install, wheel, cwd=folder)
    if here:  # the packages of this environment are found behind those of the empty one
        told = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        purelib = subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()
        known = [path for path in sys.path if path.endswith("site-packages")]
        Path(purelib, "here.pth").write_text("\n".join(known))
    run(python, "-W", "error", USE, cwd=folder)


def main():
    """Build, install, use."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("distributions", nargs="*", type=Path, help="built if none is given")
    parser.add_argument("--here", action="store_true", help="with the packages that are here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        found = [path.resolve() for path in args.distributions]
        if not found:
            run(sys.executable, "-c", BUILD, folder, cwd=ROOT)
            found = [*folder.glob("*.tar.gz")]
        for number, distribution in enumerate(found):
            place = folder / str(number)
            place.mkdir()
            is_wheel = distribution.suffix == ".whl"
            wheel = distribution if is_wheel else wheel_of(distribution, place, here=args.here)
            print(f"{distribution.name}: {wheel.name}", flush=True)
            try_out(wheel, place, here=args.here)


if __name__ == "__main__":
    main()
