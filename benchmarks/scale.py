"""How time and memory grow with the picture: both per pixel, each run in a process of its own.

`python -m benchmarks.scale` takes 0.25, 1, 4 and 16 megapixels, the baselines up to 4;
`--megapixels 64 --rounds 1` is the large single run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import _common, _measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    _common.add_network_arguments(parser)
    parser.add_argument("--megapixels", nargs="+", type=float, default=[0.25, 1, 4, 16])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=_measure.VARIANTS,
        default=["published", "instance_norm", "whole", "store", "recompute", "default"],
    )
    parser.add_argument(
        "--keeps-all-up-to",
        type=float,
        default=4,
        metavar="MP",
        help="megapixels up to which baselines and level whole are run (default: 4)",
    )
    parser.add_argument("--rounds", type=int, default=2, help="best of so many (default: 2)")
    args = parser.parse_args()
    args.photo = Path()  # only the command reads one

    _common.print_header()
    print(f"best of {args.rounds}; memory above an interpreter with torch loaded, image included\n")
    rows = []
    for megapixels in args.megapixels:
        height, width = _common.size_of(megapixels)
        variants = [
            variant
            for variant in args.variants
            if variant in ("default", "store", "recompute", "store-fp16", "recompute-fp16")
            or megapixels <= args.keeps_all_up_to
        ]
        # In turn, so that all see the same machine.
        found = [
            {variant: _measure.measure(variant, height, width, args) for variant in variants}
            for _ in range(args.rounds)
        ]
        for variant in variants:
            seconds = min(one[variant].seconds for one in found)
            total = min(one[variant].total for one in found)
            pixels = height * width
            rows.append(
                [
                    f"{megapixels:g} ({height}x{width})",
                    variant,
                    f"{seconds:.2f}",
                    f"{seconds / pixels * 1e6:.2f}",
                    _common.mebibytes(total),
                    f"{total / pixels:.0f}",
                ]
            )
            print(f"{megapixels:g} MP, {variant}: {seconds:.2f} s; {found[0][variant].plan}")
    print()
    _common.print_table(["MP", "run as", "s", "s/MP", "MiB", "B/px"], rows)


if __name__ == "__main__":
    main()
