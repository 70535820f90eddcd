"""Compiles the library into the wheel; `--plat-name` of bdist_wheel makes another platform's."""

import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))
from compiler import compile_library, library_name, this_platform

chosen = {"platform": this_platform()}


class Build(build_py):
    """The Python files, and the library beside them."""

    def run(self) -> None:
        super().run()
        platform = chosen["platform"]
        folder = Path(__file__).parent if self.editable_mode else Path(self.build_lib)
        compile_library(folder / "animebg_kernels" / library_name(platform), platform)


class Wheel(bdist_wheel):
    """A wheel for any Python of one platform."""

    def finalize_options(self) -> None:
        if self.plat_name:
            chosen["platform"] = self.plat_name
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", chosen["platform"]


class Binary(Distribution):
    """What is not for every platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=Binary, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
