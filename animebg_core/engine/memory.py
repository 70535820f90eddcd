"""How much of the computer's main memory a process may still take."""

from __future__ import annotations


def host_free_memory() -> int | None:
    """Bytes of main memory that are free; None where nobody tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            fields = dict(line.split(":", 1) for line in table)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
