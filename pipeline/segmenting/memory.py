"""The memory that this process may use."""

import os

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def usable_memory_bytes() -> int:
    """The machine's memory, or the limit of its container (cgroup version 2, else 1)."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_LIMITS:
        try:
            with open(path, encoding="ascii") as file:
                limit = file.read().strip()
        except OSError:
            continue
        # Without a limit, version 2 has `max` and version 1 a number above any memory.
        return min(memory_bytes, int(limit)) if limit.isdigit() else memory_bytes
    return memory_bytes
