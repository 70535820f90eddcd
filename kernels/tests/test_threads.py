"""The kernels' own threads: asleep when idle, none lost to a fork; Python goes on beside them."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import animebg_kernels as ak
import pytest
import torch
from cases import check, inputs_of, random_case, run

LARGE = replace(
    random_case(0), kernel=3, stride=1, transposed=False, shuffled=False, reflect=True, normed=True,
    tanh=False, inputs=64, outputs=64, height=96, width=300, norm=True, clamped=False, relu=True,
    source_type=torch.float32, made_type=torch.float32, strips=(96,), crop=0, threads=3,
)  # fmt: skip


def test_threads_are_kept_asleep(library):
    given = inputs_of(LARGE)
    run(library, LARGE, given)
    assert library.threads() == 2  # the third is the caller
    before = time.process_time()
    time.sleep(0.5)
    # What Python itself takes for a sleep is below a millisecond; one spinning thread takes 500.
    assert time.process_time() - before < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_computes_with_threads_of_its_own(library):
    run(library, LARGE, inputs_of(LARGE))
    child = os.fork()
    if not child:
        try:
            threads = library.threads()
            check(library, replace(random_case(4), threads=3))
            os._exit(0 if threads == 0 else 2)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_python_goes_on_meanwhile(library):
    given = inputs_of(LARGE)
    seen, ended = [], threading.Event()

    def count():
        while not ended.is_set():
            seen.append(time.perf_counter())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    began = time.perf_counter()
    # Everything in one call: held, the lock would keep the counter from a single turn within it.
    conv = ak.Conv(3, 1, False, False, True, True, False, 64, 64)
    layer = ak.Layer(library, conv, given["weight"].data_ptr(), None)
    inside = _one_long_call(layer, given)
    ended.set()
    counter.join()
    assert inside[1] > began
    turns = [at for at in seen if inside[0] < at < inside[1]]
    assert len(turns) >= 2


def _one_long_call(layer, given):
    height, width = 96, 300
    made = torch.empty(height, width, 64)
    scratch = torch.empty(layer.scratch_bytes(height, width, 1), dtype=torch.uint8)
    rows = ak.Rows(
        source=given["source"].data_ptr(), source_row=width * 64, last=height, height=height,
        width=width, stop=height, made_width=width, made=made.data_ptr(), made_row=width * 64,
        scratch=scratch.data_ptr(), threads=1,
    )  # fmt: skip
    began = time.perf_counter()
    layer.run(rows)
    return began, time.perf_counter()


def test_callers_at_once_get_what_each_would_get_alone(library):
    cases = [replace(random_case(seed), threads=3) for seed in range(20, 60)]
    problems, through = [], []

    def work(mine):
        try:
            for case in mine:
                check(library, case)
        except (AssertionError, ak.KernelsError) as error:
            problems.append(error)
        else:
            through.append(True)

    threads = [threading.Thread(target=work, args=(cases[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]
    assert len(through) == 4


def _load(**environment):
    code = "import animebg_kernels as k; l = k.load(); print(l and l.set)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        capture_output=True,
        text=True,
    )


def test_the_environment_switches_them_off():
    assert _load(ANIMEBG_KERNELS="off").stdout.strip() == "None"


def test_an_instruction_set_that_is_not_there_is_refused(path):
    with pytest.raises(ak.KernelsError, match="no instruction set 'mmx'"):
        ak.Library(path, "mmx")


def test_a_file_that_is_no_library_is_refused(tmp_path):
    other = tmp_path / "library.so"
    other.write_text("no library")
    with pytest.raises(ak.KernelsError, match="cannot be loaded"):
        ak.Library(other)
