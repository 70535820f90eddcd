"""The library that is tested: compiled for it, or the one that ANIMEBG_KERNELS_LIBRARY names."""

import os
from pathlib import Path

import animebg_kernels
import compiler
import pytest


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    given = os.environ.get("ANIMEBG_KERNELS_LIBRARY")
    if given:
        return Path(given)
    pytest.importorskip("ziglang", reason="no compiler: pip install ziglang")
    made = tmp_path_factory.mktemp("library") / "animebg_kernels.so"
    compiler.compile_library(made, compiler.this_platform(), tests=True)
    return made


@pytest.fixture(scope="session")
def library(path):
    return animebg_kernels.Library(path)
