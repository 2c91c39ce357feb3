"""The most memory that this process held, from a moment on and not since it began."""

import gc
import resource
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Notes how many bytes a process held within it, at most, beyond those that it began with.

    Where the system cannot start anew (others than Linux), what was held before hides as much.
    """

    def __enter__(self):
        gc.collect()
        if _CLEAR.exists():
            _CLEAR.write_text("5")
        self._before, self.most = _peak(), 0
        return self

    def __exit__(self, *raised):
        self.most = _peak() - self._before


def _peak():
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 2**10
