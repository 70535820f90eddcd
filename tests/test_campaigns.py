"""A quick slice of the campaigns in benchmarks/faults.py, whose full counts are run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts on fork and on /proc")

# In a process of its own: its children are forked, which a suite with threads is no place for.
RUN = """
import json, sys
import torch
from benchmarks import faults
torch.set_num_threads(1)
kind, count = sys.argv[1], int(sys.argv[2])
if kind == "kills":
    found = faults.kills(count, 5)
else:
    whole = getattr(faults, kind)()
    read = faults.read_photo if kind == "pictures" else faults.load_checkpoint
    found = {kind: faults.campaign(whole, read, count, 5)}
print(json.dumps(found))
"""


def campaign(kind, count):
    """Outcomes by campaign."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, kind, str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["pictures", "checkpoints"])
def test_damaged_files_are_read_or_refused_in_one_line(kind):
    (found,) = campaign(kind, 200).values()
    assert sum(found.values()) == 200
    wrong = {what: n for what, n in found.items() if what != "read" and "refused" not in what}
    assert not wrong
    # Flips and insertions in pixels or behind them leave a picture: refusing all is no mending.
    assert found["read"] >= (40 if kind == "pictures" else 5)


def test_after_a_kill_nothing_is_half_made_and_the_next_run_ends_right():
    found = campaign("kills", 6)
    assert found == {name: {"right": 2} for name in ("folder runs", "conversions", "downloads")}


READER = """
import os, signal, time
from benchmarks import faults
faults.SECONDS = 1
def read(path):
    data = path.read_bytes()
    kind = sum(data) % 40 if path.name != "whole.bin" else -1
    if kind == 0: os.kill(os.getpid(), signal.SIGSEGV)
    if kind == 1: time.sleep(30)
    if kind == 2: os.system("true")
    if kind == 3: raise ValueError
    if kind == 4: bytearray(8 << 30)
print(*faults.failures(faults.campaign({"bin": bytes(range(64))}, read, 400, 1)), sep="\\n")
"""


def test_a_reader_that_crashes_hangs_runs_code_or_takes_all_memory_is_found_out():
    done = subprocess.run(
        [sys.executable, "-c", READER], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    found = {line.split(":")[0] for line in done.stdout.splitlines()}
    wanted = {"CRASH (signal 11)", "HANG", "CODE RAN (os.system)", "RAISED ValueError"}
    assert found == wanted | {"RAISED MemoryError"}, done.stderr
