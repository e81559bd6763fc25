"""Where a result comes from: versions, hardware and commit, for config.json."""

import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from darkroom import __version__

PACKAGES = ("torch", "numpy", "pillow", "scikit-learn", "onnx", "onnxruntime", "timm")


def provenance() -> dict[str, Any]:
    """Time, versions, hardware, and the commit of darkroom where it runs from a checkout."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"darkroom": __version__, "python": platform.python_version()} | _installed(),
        "hardware": hardware(),
        "platform": platform.platform(),
        "commit": _commit(),
    }


def hardware() -> dict[str, Any]:
    """Processor, usable cores and memory in bytes."""
    return {"processor": _processor(), "cores": available_cores(), "memory_bytes": _memory()}


def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Processors that this process may use, which containers keep below those of the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, _quota()))


@cache
def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Processors that the control group of a container has time for, rounded up; many where it sets no bound."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or the word max
        return 2**31


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        # A site-packages folder inside somebody's repository is not a checkout of darkroom.
        if not (here.parents[1] / ".git").exists():
            return None
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
