"""How much of the computer's main memory a process may still take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Limits and usage by version of the control groups, and the pages of files in memory.stat that the
# kernel drops first: they count as used, but are there for the asking. Above `high` version 2 only
# slows a group down, to a crawl.
_GROUP_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


def host_free_memory(root: Path = Path("/")) -> int | None:
    """Bytes of main memory that this process may still take; None where nobody tells.

    The least of what the machine has available, what the control groups leave (of a container or
    service, and of all that those are in; versions 1 and 2), and what is left of the limit on the
    address space (`ulimit -v`). Swap does not count.

    Args:
        root: the file system that is asked, for tests.
    """
    process = root / "proc/self"
    found = [_meminfo(root / "proc/meminfo"), _address_space(process), *_groups(root, process)]
    known = [count for count in found if count is not None]
    return max(0, min(known)) if known else None


def _meminfo(path: Path) -> int | None:
    """What the machine can give without swapping."""
    available = _fields(path, ":").get("MemAvailable", "").split()
    return _number(available[0]) * 1024 if available else None


def _address_space(process: Path) -> int | None:
    """What the limit on this process's address space leaves, if there is one."""
    for line in _lines(process / "limits"):
        if line.startswith("Max address space"):
            limit = line.split()[3]  # the soft one
            used = _fields(process / "status", ":").get("VmSize", "0 kB").split()[0]
            return _number(limit) - _number(used) * 1024 if limit.isdigit() else None
    return None


def _groups(root: Path, process: Path) -> Iterator[int]:
    """What each control group that this process is in, and each above those, leaves."""
    mounts = dict(_mounts(process))
    for line in _lines(process / "cgroup"):
        number, controllers, path = line.split(":", 2)
        version = 2 if number == "0" and not controllers else 1
        if version not in mounts or (version == 1 and "memory" not in controllers.split(",")):
            continue
        point, shown = mounts[version]
        # A container may see only its own part of the tree, under the whole tree's names.
        place = PurePosixPath(path)
        below = place.relative_to(shown) if place.is_relative_to(shown) else PurePosixPath(".")
        if ".." in below.parts:  # outside what this process sees
            below = PurePosixPath(".")
        for group in (below, *below.parents):
            left = _left(root / point.lstrip("/") / group, version)
            if left is not None:
                yield left


def _mounts(process: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Version, and where its tree of groups is mounted, and which part of the tree that is."""
    for line in _lines(process / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            yield 2, (fields[4], fields[3])
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            yield 1, (fields[4], fields[3])


def _left(group: Path, version: int) -> int | None:
    """Bytes that a control group's limits leave; None where it has none."""
    limits, usage, idle = _GROUP_FILES[version]
    texts = [text for name in limits for text in _lines(group / name)]
    known = [int(text) for text in texts if text.isdigit()]  # others say "max"
    used = "".join(_lines(group / usage))
    # Version 1 says "none" by a number near 2**63.
    if not known or not used.isdigit() or min(known) >= sys.maxsize // 2:
        return None
    return min(known) - int(used) + _number(_fields(group / "memory.stat", " ").get(idle, "0"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _fields(path: Path, separator: str) -> dict[str, str]:
    parts = (line.partition(separator) for line in _lines(path))
    return {name: value.strip() for name, _, value in parts}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
