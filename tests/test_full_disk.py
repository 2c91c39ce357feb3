"""Writers that the system stops say which file and why, and leave what was there as it was."""

import errno
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import v1tlearn as v1

ROOT = Path(__file__).parents[1]

# A file that grows over a limit fails as one does on a full disk.
FULL = """
    import errno, json, os, resource, signal, sys, warnings
    from pathlib import Path
    import v1tlearn as v1

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    source, out = map(Path, sys.argv[1:])
    trials = v1.Trials.open(source)
    tree = v1.open_recordings(source)
    model = v1.LNRegressor(max_epochs=1, device="cpu", random_state=0)
    fitted = v1.LNRegressor(max_epochs=1, device="cpu", random_state=0).fit(trials)
    calls = {
        "model/": lambda: fitted.save(out / "model"),
        "c/epoch-000001/": lambda: model.fit(trials, checkpoint_dir=out / "c"),
        "r.nc": lambda: v1.save_recordings(tree, out / "r.nc"),
        "s.nc": lambda: v1.save_recordings(tree, out / "s.nc", compression=None),
        "staticA-GrayImageNet/": lambda: v1.write_sensorium(tree, out),
        "staticA-GrayImageNet.zip": lambda: v1.write_sensorium(tree, out, zip=True),
    }
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (50, 2000):
        for target, call in calls.items():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                call()
                told = None
            except Exception as error:
                told = type(error).__name__, getattr(error, "errno", str(error))
                told = [*told, getattr(error, "filename", None)]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            files = [p for p in out.rglob("*") if p.is_file()]
            files = {str(p.relative_to(out)): p.read_text(errors="replace")[:99] for p in files}
            print(json.dumps([target, told, files]), flush=True)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no limit of file sizes")
def test_a_full_disk_is_told_with_the_file_and_what_was_there_stays(tmp_path):
    recordings = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=40,
        n_trials=60,
        random_state=0,
        n_test_images=1,
        n_repeats=2,
        image_shape=(36, 64),
    )
    (mouse,) = recordings.children
    v1.save_recordings({"A": recordings[mouse].to_dataset()}, tmp_path / "from.nc")
    out = tmp_path / "out"
    out.mkdir()
    earlier = {"r.nc": "earlier", "s.nc": "earlier"}
    for name, text in earlier.items():
        (out / name).write_text(text)
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "from.nc"), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 12
    for target, told, files in lines:
        assert told[:2] == ["OSError", errno.EFBIG], (target, told)
        assert told[2].startswith(str(out / target)), (target, told)
        assert files == earlier
