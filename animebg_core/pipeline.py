"""`stylize`: the one function that painter, node, command line, benchmark and test call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Yields
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from .engine import stream
from .engine.device import Device
from .engine.plan import RunPlan, plan_run
from .engine.schedule import Level, total_work
from .engine.statistics import Statistics
from .errors import ImageError, OptionError
from .images import check_image, extend, to_image, to_network
from .masks import check_strength, fill_outside, fit_mask, mix, statistics_weight
from .network.generator import Generator

Progress = Callable[[int, int], None]
_FRUGAL_FIRST: tuple[Level, ...] = ("recompute", "store", "whole")


def stylize(
    image: Tensor,
    generator: Generator,
    *,
    strength: float = 1.0,
    mask: Tensor | None = None,
    plan: RunPlan | None = None,
    statistics: Statistics | None = None,
    progress: Progress | None = None,
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
        statistics: of `gather_statistics` with this generator, so that pictures painted under them
            share one palette; None: each picture's own.
        progress: called with (work done, work in all) as the run goes on; what it raises stops the
            run and comes out of this function.

    Returns:
        A new tensor of the image's shape, dtype and device, an ordinary one under whatever mode of
        torch it is called. Alpha is the image's.

    Raises:
        ImageError, MaskError, OptionError: an argument is not as said above.
        MemoryBudgetError: no plan fits the memory.
    """
    check_image(image)
    strength = check_strength(strength)
    _check_statistics(statistics, generator)
    with torch.inference_mode(False):
        result = torch.empty_like(image, requires_grad=False)
    with _plain_arithmetic(image.device, generator.device):
        image = image.detach()
        batch, height, width, _ = image.shape
        masks = None if mask is None else fit_mask(mask, image)
        plan = plan or plan_run(generator, height, width, batch=batch, masked=mask is not None)

        painted: list[int] = []
        for index in range(batch):
            if strength == 0 or (masks is not None and not bool(masks[index].any())):
                result[index] = image[index]
            else:
                painted.append(index)
        groups = [painted[at : at + plan.batch] for at in range(0, len(painted), plan.batch)]
        side = generator.design.min_side
        work = total_work(
            generator, max(height, side), max(width, side), plan.level, gathers=statistics is None
        )
        step = _steps(work * len(groups), progress)

        for group in groups:
            # Indexing with a list copies; one image, the usual case, is a view.
            chosen = slice(group[0], group[0] + 1) if len(group) == 1 else group
            _stylize_group(
                image[chosen],
                generator,
                plan,
                strength,
                None if masks is None else masks[chosen],
                statistics,
                write=lambda start, rows, at=chosen: _put(result, at, start, rows),
                step=step,
            )
    return result


def gather_statistics(
    images: Sequence[Tensor],
    generator: Generator,
    *,
    budget: int | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """The statistics of several pictures together, as if they were one.

    They go through the network side by side, and each stage's moments are taken over all of them
    before the next stage runs. (Statistics of separate runs fit no run once they are merged.)

    Args:
        images: RGB or RGBA [B, H, W, 3 or 4] each, as for `stylize`, of any sizes.
        generator: the style.
        budget: bytes that may be taken on the generator's device; None: what is free. The maps of
            all pictures are held at once.
        progress: as for `stylize`.

    Returns:
        What `stylize` takes as `statistics`.

    Raises:
        ImageError: no image, or one that is not as said above.
        MemoryBudgetError: they do not fit the memory together.
    """
    if not images:
        raise ImageError("statistics are gathered from one image or more, and none was given")
    for image in images:
        check_image(image)
    device = Device.of(generator)
    with _plain_arithmetic(generator.device, *(image.device for image in images)):
        side = generator.design.min_side
        pictures = [
            extend(image.detach()[at : at + 1, ..., :3], side)
            for image in images
            for at in range(image.shape[0])
        ]
        sums = [picture.sum((1, 2), dtype=torch.float64).cpu() for picture in pictures]
        pixels = sum(picture.shape[1] * picture.shape[2] for picture in pictures)
        mean = sum(sums[1:], sums[0]) / pixels
        colour = to_network(mean[:, None, None])[:, :, 0, 0]

        budget = device.free_memory() if budget is None else budget
        share = None if budget is None else budget // len(pictures)
        plans = [plan_run(generator, p.shape[1], p.shape[2], budget=share) for p in pictures]
        chosen = {plan.level for plan in plans}
        level: Level = next(level for level in _FRUGAL_FIRST if level in chosen)
        work = sum(total_work(generator, p.shape[1], p.shape[2], level) for p in pictures)
        moments = stream.gather(
            generator,
            [replace(plan, level=level, batch=1) for plan in plans],
            [_picture(picture, colour, device) for picture in pictures],
            step=_steps(work, progress),
        )
        if progress:
            progress(work, work)  # the last stage has no statistics to gather
    return Statistics(colour, moments)


@contextmanager
def _plain_arithmetic(*devices: torch.device) -> Yields[None]:
    """No gradients and no autocast, whatever the caller has switched on."""
    with ExitStack() as stack:
        for kind in sorted({device.type for device in devices} & {"cpu", "cuda", "xpu"}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode())
        yield


def _check_statistics(statistics: Statistics | None, generator: Generator) -> None:
    if statistics is None:
        return
    wanted = {s.name: generator.channels[s.name] for s in generator.stages if s.norm}
    found = {name: moments.mean.shape[-1] for name, moments in statistics.moments.items()}
    if found != wanted:
        raise OptionError(
            "these statistics are of another network: gather them again with the one that paints"
        )


def _steps(total: int, progress: Progress | None) -> Callable[[int], None]:
    """Adds up the work done, and tells of it."""
    done = 0

    def step(units: int) -> None:
        nonlocal done
        done += units
        if progress:
            progress(done, total)

    return step


def _put(result: Tensor, at: slice | list[int], start: int, rows: Tensor) -> None:
    result[at, start : start + rows.shape[1]] = rows


def _picture(
    image: Tensor, colour: Tensor, device: Device, weight: Tensor | None = None
) -> stream.Picture:
    """An image [N, H, W, 3] as the engine reads it: less its mean colour [1 or N, 3].

    The first convolution pads by reflection, so that taking a colour off changes each of its
    channels by a constant, which the norm behind it takes away. What is left is small where a
    picture is nearly flat, and there rounding errors would be blown up otherwise.
    """
    mean = colour.to(device.device)[:, :, None, None]

    def read(start: int, stop: int) -> Tensor:
        rows = to_network(image[:, start:stop].to(device.device))
        return rows.sub_(mean).to(device.arithmetic)

    images, height, width, _ = image.shape
    return stream.Picture(height, width, read, weight, images)


def _stylize_group(
    photo: Tensor,
    generator: Generator,
    plan: RunPlan,
    strength: float,
    mask: Tensor | None,
    statistics: Statistics | None,
    *,
    write: Callable[[int, Tensor], None],
    step: Callable[[int], None],
) -> None:
    """Paint photos [N, H, W, C] together; `write` takes a first row and rows [N, h, W, C]."""
    width = photo.shape[2]
    device, side = Device.of(generator), generator.design.min_side
    colours = photo[..., :3]
    image = extend(colours if mask is None else fill_outside(colours, mask), side)
    if statistics is None:
        colour = to_network(image.mean((1, 2), True, dtype=torch.float32))[:, :, 0, 0]
    else:
        colour = statistics.colour

    def finish(start: int, rows: Tensor) -> None:
        original = photo[:, start : start + rows.shape[2]]
        if not original.shape[1]:
            return  # the network's output is rounded up
        painted = to_image(rows[:, :, : original.shape[1], :width]).to(photo.device)
        amount = strength if mask is None else strength * mask[:, start : start + rows.shape[2]]
        write(start, mix(original, painted, amount))

    weight = None
    if mask is not None and statistics is None:
        seen = extend(statistics_weight(mask)[..., None], side)
        weight = seen.to(generator.device).permute(0, 3, 1, 2)
    stream.paint(
        generator,
        plan,
        _picture(image, colour, device, weight),
        finish,
        statistics=statistics,
        step=step,
    )
