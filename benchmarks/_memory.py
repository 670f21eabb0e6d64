"""Resident memory of this process, from /proc (Linux).

Not `resource.getrusage`: what it calls a child's peak begins at what the parent had.
"""

from __future__ import annotations

import re
from pathlib import Path


def resident_mib(field: str = "VmHWM") -> float:
    """The most that was held so far (``VmHWM``), or what is held now (``VmRSS``)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
