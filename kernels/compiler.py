"""Compiles the library with zig's C compiler, for this machine or another.

`python compiler.py FILE` compiles for this machine; `--tests` adds what only tests use,
`--sanitise` the address sanitiser (by gcc, whose runtime is at hand on Linux).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "src"

# The platforms of wheels, and what zig calls them. glibc 2.17 is that of manylinux2014.
TARGETS = {
    "manylinux_2_17_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux_2_17_aarch64": "aarch64-linux-gnu.2.17",
    "win_amd64": "x86_64-windows-gnu",
    "macosx_11_0_x86_64": "x86_64-macos.11.0",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
}

_COMMON = ["-O3", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]
# Only these files may hold instructions that not every processor has: they run after a look at it.
_SETS = {
    "x86_64": {
        "set_avx2.c": ["-mavx2", "-mfma", "-mf16c"],
        "set_avx512.c": ["-mavx512f", "-mavx2", "-mfma", "-mf16c"],
    },
    "aarch64": {"set_neon.c": []},
}


def this_platform() -> str:
    """The platform of a wheel for this machine."""
    system, _, machine = sysconfig.get_platform().rpartition("-")
    arm = machine in ("arm64", "aarch64")
    if system.startswith("linux"):
        return f"manylinux_2_17_{'aarch64' if arm else 'x86_64'}"
    if system.startswith("macosx"):
        import platform  # of a universal build the name says nothing

        return f"macosx_11_0_{platform.machine()}"
    return "win_amd64"


def library_name(platform: str) -> str:
    """What the library is called there, as `animebg_kernels` looks for it."""
    suffix = {"win": ".dll", "mac": ".dylib"}.get(platform[:3], ".so")
    return f"animebg_kernels{suffix}"


def compile_library(
    made: Path,
    platform: str,
    *,
    tests: bool = False,
    sanitise: bool = False,
    program: Path | None = None,
) -> None:
    """Write the library for a platform of `TARGETS` to `made`.

    Args:
        tests: with what only tests use.
        sanitise: with the address sanitiser, by gcc.
        program: a C file to make a program of, which holds the library.

    Raises:
        subprocess.CalledProcessError: the compiler failed; it said why.
    """
    target = TARGETS[platform]
    sets = dict(_SETS[target.split("-")[0]])
    options = list(_COMMON)
    emulated = program is not None and platform != this_platform()
    if emulated:  # by an emulator that has no libraries of that system
        target = target.split("-")[0] + "-linux-musl"
    if not target.endswith("windows-gnu"):
        options += ["-fPIC"]
    if tests and "set_avx2.c" in sets:
        sets["set_wide.c"] = [*sets["set_avx2.c"], "-Wno-psabi"]
        options += ["-DAB_WIDE"]
    if sanitise:
        compiler = ["gcc"]
        options = [*options, "-O1", "-g1", "-fsanitize=address", "-fno-omit-frame-pointer"]
    else:
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    files = {**sets, "layers.c": [], "sets.c": [], "threads.c": []}
    if program:
        files[str(program.resolve())] = []
    with tempfile.TemporaryDirectory() as folder:

        def compile_one(item: tuple[str, list[str]]) -> str:
            name, more = item
            output = str(Path(folder) / f"{Path(name).name}.o")
            source = str(SOURCES / name)
            subprocess.run([*compiler, *options, *more, "-c", source, "-o", output], check=True)
            return output

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, files.items()))
        link = [*([] if program else ["-shared"]), *objects]
        link += ["-fsanitize=address"] if sanitise else [] if program else ["-s"]
        if emulated:
            link += ["-static"]
        if "linux" in target:
            link += ["-lpthread", "-lm"]
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*compiler, *link, "-o", str(made)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("made", type=Path, metavar="FILE")
    parser.add_argument("--platform", choices=TARGETS, default=this_platform())
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--sanitise", action="store_true")
    parser.add_argument("--program", type=Path, metavar="FILE.c")
    args = parser.parse_args()
    compile_library(
        args.made,
        args.platform,
        tests=args.tests,
        sanitise=args.sanitise,
        program=args.program,
    )
