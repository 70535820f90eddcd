"""`stylize`: the one function that node, command line, benchmark and test call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .engine.convolution import compute_dtype
from .engine.plan import RunPlan, plan_run, total_work
from .engine.stream import paint
from .images import check_image, extend, to_image, to_network
from .masks import check_strength, fill_outside, fit_mask, mix, statistics_weight
from .network.design import MIN_SIDE
from .network.generator import Generator


@torch.inference_mode()
def stylize(
    image: Tensor,
    generator: Generator,
    *,
    strength: float = 1.0,
    mask: Tensor | None = None,
    plan: RunPlan | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Photos as anime backgrounds.

    Args:
        image: RGB or RGBA [B, H, W, 3 or 4], any float dtype, in [0, 1], on any device; any size
            from 1 x 1 up. It is left as it is.
        generator: the style, from `load_generator`; it runs where its weights are.
        strength: 0 returns the photo, 1 the painting, between them a mixture.
        mask: [H, W], [1, H, W] or [B, H, W] of any size: 1 paints, 0 keeps the photo exactly. The
            statistics of the network's norms see only what is painted. A batch longer than its
            masks repeats them.
        plan: how to run, from `plan_run`; None chooses one.
        progress: called with (work done, work in all) as the run goes on; what it raises stops the
            run and comes out of this function.

    Returns:
        A new tensor of the image's shape, dtype and device. Alpha is the image's.

    Raises:
        ImageError, MaskError, OptionError: an argument is not as said above.
        MemoryBudgetError: no plan fits the memory.
    """
    check_image(image)
    strength = check_strength(strength)
    batch, height, width, _ = image.shape
    masks = None if mask is None else fit_mask(mask, image)
    plan = plan or plan_run(generator, height, width, batch=batch, masked=mask is not None)
    result = torch.empty_like(image)

    painted: list[int] = []
    for index in range(batch):
        if strength == 0 or (masks is not None and not bool(masks[index].any())):
            result[index] = image[index]
        else:
            painted.append(index)
    groups = [painted[at : at + plan.batch] for at in range(0, len(painted), plan.batch)]
    work = total_work(generator, plan.level, max(height, MIN_SIDE), max(width, MIN_SIDE))
    done, total = 0, work * len(groups)

    def step(units: int) -> None:
        nonlocal done
        done += units
        if progress:
            progress(done, total)

    for group in groups:
        # Indexing with a list copies; one image, the usual case, is a view.
        chosen = slice(group[0], group[0] + 1) if len(group) == 1 else group
        _stylize_group(
            image[chosen],
            generator,
            plan,
            strength,
            None if masks is None else masks[chosen],
            write=lambda start, rows, at=chosen: _put(result, at, start, rows),
            step=step,
        )
    return result


def _put(result: Tensor, at: slice | list[int], start: int, rows: Tensor) -> None:
    result[at, start : start + rows.shape[1]] = rows


def _stylize_group(
    photo: Tensor,
    generator: Generator,
    plan: RunPlan,
    strength: float,
    mask: Tensor | None,
    *,
    write: Callable[[int, Tensor], None],
    step: Callable[[int], None],
) -> None:
    """Paint photos [N, H, W, C] together; `write` takes a first row and rows [N, h, W, C]."""
    width = photo.shape[2]
    device, dtype = generator.device, compute_dtype(generator.device, generator.dtype)
    colours = photo[..., :3]
    picture = extend(colours if mask is None else fill_outside(colours, mask))

    # The network reads the picture less its mean colour. Its first convolution pads by reflection,
    # so that this changes each channel by a constant, which the norm behind it takes away. What is
    # left is small where a picture is nearly flat, and there rounding errors would be blown up
    # otherwise.
    mean = to_network(picture.mean((1, 2), True, dtype=torch.float32)).to(device)

    def read(start: int, stop: int) -> Tensor:
        rows = to_network(picture[:, start:stop].to(device))
        return rows.sub_(mean).to(dtype)

    def finish(start: int, rows: Tensor) -> None:
        original = photo[:, start : start + rows.shape[2]]
        if not original.shape[1]:
            return  # the network's output is rounded up to multiples of 4 or 2
        painted = to_image(rows[:, :, : original.shape[1], :width]).to(photo.device)
        amount = strength if mask is None else strength * mask[:, start : start + rows.shape[2]]
        write(start, mix(original, painted, amount))

    weight = None
    if mask is not None:
        weight = extend(statistics_weight(mask)[..., None]).to(device).permute(0, 3, 1, 2)
    paint(
        generator,
        plan,
        read,
        finish,
        height=picture.shape[1],
        width=picture.shape[2],
        weight=weight,
        step=step,
    )
