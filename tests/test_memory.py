"""How much main memory a process may take: the least of what machine, groups and limits leave."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import animebg_core
from animebg_core.engine import device
from animebg_core.engine.memory import host_free_memory

GB = 10**9
MOUNT_2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
MOUNT_1 = "33 24 0:29 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
LIMITS = "Limit  Soft Limit  Hard Limit  Units\nMax address space  {}  unlimited  bytes\n"


@pytest.fixture
def machine(tmp_path):
    """A file system in which 16 GB are available, and a function that adds files to it."""

    def put(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        return tmp_path

    put({"proc/meminfo": "MemTotal: 20000000 kB\nMemFree: 1 kB\nMemAvailable: 15625000 kB\n"})
    return put


def group(path, limit, usage, stat, **more):
    """The files of a control group of version 2."""
    files = {"memory.max": limit, "memory.current": usage, "memory.stat": stat, **more}
    return {f"sys/fs/cgroup/{path}/{name}": content for name, content in files.items()}


def test_without_limits_it_is_what_the_machine_has_available(machine):
    assert host_free_memory(machine({})) == 16 * GB
    assert host_free_memory(machine({"proc/self/limits": LIMITS.format("unlimited")})) == 16 * GB


def test_where_nobody_tells_nothing_is_known(tmp_path):
    assert host_free_memory(tmp_path) is None


def test_a_container_of_version_2_counts_and_what_can_be_dropped_is_free(machine):
    root = machine(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": MOUNT_2,
            **group(".", 900_000_000, 500_000_000, "anon 1\ninactive_file 200000000\n"),
        }
    )
    assert host_free_memory(root) == 600_000_000


def test_a_limit_of_a_group_above_counts_too_and_so_does_high(machine):
    inner = group("user.slice/mine", "max", 10, "inactive_file 0\n")
    files = {
        "proc/self/cgroup": "0::/user.slice/mine\n",
        "proc/self/mountinfo": MOUNT_2,
        **inner,
    }
    root = machine({**files, **group("user.slice", 5 * GB, GB, "inactive_file 0\n")})
    assert host_free_memory(root) == 4 * GB
    root = machine({f"sys/fs/cgroup/user.slice/mine/{'memory.high'}": 2 * GB})
    assert host_free_memory(root) == 2 * GB - 10


@pytest.mark.parametrize("own", ["/docker/abc", "/"])
def test_a_container_of_version_1_counts(machine, own):
    # Without a namespace of its own a container sees the outer name, but only its part of the tree.
    mount = MOUNT_1.replace(" / ", f" {own} ", 1)
    root = machine(
        {
            "proc/self/cgroup": f"5:cpu:/x\n4:memory:{own}\n",
            "proc/self/mountinfo": mount,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 3 * GB,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 2 * GB,
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}\n",
        }
    )
    assert host_free_memory(root) == 2 * GB
    none = {"sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712}
    assert host_free_memory(machine(none)) == 16 * GB


def test_a_limit_on_the_address_space_counts(machine):
    root = machine(
        {
            "proc/self/limits": LIMITS.format(4 * GB),
            "proc/self/status": "Name: python\nVmSize:  1000000 kB\n",
        }
    )
    assert host_free_memory(root) == 4 * GB - 1_024_000_000


def test_more_used_than_allowed_is_nothing_free(machine):
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": MOUNT_2}
    assert host_free_memory(machine({**files, **group(".", GB, 2 * GB, "")})) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits on the address space are Linux's")
def test_a_real_process_knows_its_own_limit():
    code = (
        "import resource\n"
        "from animebg_core.engine.memory import host_free_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 50, resource.RLIM_INFINITY))\n"
        "before = host_free_memory()\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000, resource.RLIM_INFINITY))\n"
        "after = host_free_memory()\n"
        "assert after < before and 50_000_000 < after <= 100_000_000, (before, after)\n"
    )
    root = Path(animebg_core.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_large_pages_are_asked_for_whole_and_within_the_memory(monkeypatch):
    asked = []

    def advise(start, length, advice):
        asked.append((start.value, length.value, advice))
        return -1  # refused: nothing comes of it

    monkeypatch.setattr(device, "_C_LIBRARY", SimpleNamespace(madvise=advise))
    cpu = device.Device(torch.device("cpu"), torch.float32, cpu=True)
    made = cpu.take_map(1, 32, 256, 256, dtype=torch.float32)  # 8 MiB
    assert made.is_contiguous(memory_format=torch.channels_last)
    ((start, length, advice),) = asked
    assert start % (2 << 20) == length % (2 << 20) == 0
    assert made.data_ptr() <= start
    assert start + length <= made.data_ptr() + made.nbytes
    assert length >= 4 << 20
    assert advice == 14  # MADV_HUGEPAGE
    cpu.take_map(1, 3, 8, 8, dtype=torch.float16)
    cpu.take_map(0, 3, 8, 8, dtype=torch.float32)
    monkeypatch.setattr(device, "_C_LIBRARY", None)  # no Linux
    cpu.take_map(1, 32, 256, 256, dtype=torch.float32)
    assert len(asked) == 1
