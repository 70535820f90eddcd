"""The `animebg` command: arguments, files and progress; the work itself is `pipeline.stylize`.

Results go to standard output (a path per line), everything else to standard error. Exit status:
0 done, 1 something failed and the rest is done, 2 a wrong command, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import __version__
from ..engine.device import out_of_memory
from ..engine.kernels.native import instruction_set
from ..errors import AnimeBGError, MaskError, OptionError, StyleError
from . import convert, download, export, styles, stylize, train
from .terminal import messages, orderly_end, result, results_lost, say

# A new command is a module here: HELP, add_arguments(parser) and run(args), the exit status.
_COMMANDS = {
    "stylize": stylize,
    "styles": styles,
    "download": download,
    "convert": convert,
    "export": export,
    "train": train,
}

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own if None); returns the exit status."""
    args = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        with orderly_end(), messages(verbose=getattr(args, "verbose", False)):
            return run(args) or int(results_lost())
    except (StyleError, OptionError, MaskError) as error:
        say(f"error: {error}")
        return 2
    except (AnimeBGError, OSError) as error:
        say(f"error: {error}")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        say("error: too little memory to load the network")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what is finished is whole, run the same again to go on")
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(2, f"animebg: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """The version, and what convolves on the CPU, which is worked out only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        """Print it and end."""
        name = instruction_set()
        kernels = f"native kernels ({name})" if name else "torch's kernels"
        result(f"animebg {__version__}, {kernels}")
        parser.exit(int(results_lost()))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="animebg", description="Photos to anime backgrounds.")
    parser.add_argument("--version", action=_Version, nargs=0)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        text = module.HELP
        # No abbreviations: an option added later must not change what one means.
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser
