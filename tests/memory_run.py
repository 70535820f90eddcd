"""One painting in a process of its own: what the plan said it would take, and what it took.

`python memory_run.py NETWORK HEIGHT WIDTH DTYPE MASKED`: two numbers of bytes.
"""

import sys

import torch

from animebg_core import load_generator, plan_run, stylize


def status(field):
    """Bytes by Linux's own accounting: VmRSS (now) or VmHWM (the highest so far)."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def main(network, height, width, dtype, masked):
    height, width, masked = int(height), int(width), masked == "masked"
    generator = load_generator(network, dtype=getattr(torch, dtype))
    # What libraries load once, when they first run, is nobody's prediction.
    stylize(torch.rand(1, 16, 16, 3), generator, mask=torch.ones(16, 16))
    image = torch.rand(1, height, width, 3)
    mask = torch.ones(height, width) if masked else None
    if mask is not None:
        mask[: height // 2] = 0
    plan = plan_run(generator, height, width, masked=masked, budget=1 << 60)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest so far begins anew
    before = status("VmRSS")
    stylize(image, generator, mask=mask, plan=plan)
    print(plan.peak_bytes, status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
