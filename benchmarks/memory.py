"""Peak memory of a run, measured in fresh processes, beside what its plan predicts.

`python -m benchmarks.memory` measures a 4K picture at every level and the command on a 4K PNG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import _common, _measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    _common.add_network_arguments(parser)
    parser.add_argument("--sizes", nargs="+", type=_common.size, default=[(2160, 3840)])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=_measure.VARIANTS,
        default=["default", "store", "recompute", "recompute-fp16", "cli"],
    )
    parser.add_argument("--photo", type=Path, default=_common.DEMO_PHOTO, help="for the PNG")
    args = parser.parse_args()

    _common.print_header()
    print("total: peak of the process above an interpreter with torch loaded, image included")
    print("run: peak above the same process with network and image, what the plan predicts\n")
    header = ["size", "run as", "total MiB", "B/px", "run MiB", "predicted MiB", "ratio", "s"]
    for height, width in args.sizes:
        rows = []
        for variant in args.variants:
            found = _measure.measure(variant, height, width, args)
            mebibytes = _common.mebibytes
            rows.append(
                [
                    f"{height}x{width}",
                    variant,
                    mebibytes(found.total),
                    f"{found.total / (height * width):.0f}",
                    mebibytes(found.run),
                    mebibytes(found.predicted) if found.plan else "",
                    f"{found.predicted / found.run:.2f}" if found.plan else "",
                    f"{found.seconds:.1f}",
                ]
            )
            print(f"{variant}: {found.plan}", flush=True)
        print()
        _common.print_table(header, rows)


if __name__ == "__main__":
    main()
