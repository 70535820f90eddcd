"""The kernels in a program of plain C: under valgrind, the address sanitiser, emulated on ARM."""

import shutil
import subprocess
import sys
from pathlib import Path

import compiler
import pytest

CHECK = Path(__file__).parent / "check.c"
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="run on Linux alone"),
    pytest.mark.skipif(not compiler.this_platform().endswith("x86_64"), reason="run on x86-64"),
]


def _built(path, platform=None, **options):
    if not options.get("sanitise"):
        pytest.importorskip("ziglang", reason="no compiler: pip install ziglang")
    compiler.compile_library(path, platform or compiler.this_platform(), program=CHECK, **options)
    return str(path)


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 cases are wrong\n")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return _built(tmp_path_factory.mktemp("check") / "check", tests=True)


def _sets(program):
    """Those of this processor."""
    return subprocess.run([program], capture_output=True, text=True).stdout.split()


def test_every_instruction_set_agrees_with_plain_loops(program):
    assert _sets(program)
    for name in _sets(program):
        _run(program, name, "0", "500")


@pytest.mark.skipif(not shutil.which("valgrind"), reason="no valgrind")
def test_valgrind_finds_nothing(program):
    # It knows no AVX-512; the form of it that is made of two AVX2 vectors it does.
    for name in ("avx2", "wide"):
        _run("valgrind", "-q", "--error-exitcode=9", program, name, "0", "60")


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_the_address_sanitiser_finds_nothing(tmp_path):
    program = _built(tmp_path / "check", sanitise=True)
    for name in _sets(program):
        _run(program, name, "0", "300")


@pytest.mark.skipif(
    not shutil.which("qemu-aarch64"), reason="no qemu-aarch64: apt install qemu-user"
)
def test_neon_emulated_agrees_with_plain_loops(tmp_path):
    program = _built(tmp_path / "check", "manylinux_2_17_aarch64")
    _run("qemu-aarch64", program, "neon", "0", "200")
