"""`stylize`: the one function that painter, node, command line, benchmark and test call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from .colour import mix_colours
from .engine import stream
from .engine.device import Device, plain_arithmetic
from .engine.plan import RunPlan, plan_run
from .engine.schedule import Level, total_work
from .engine.statistics import Statistics
from .engine.transfers import Transfers
from .errors import ImageError, OptionError
from .images import check_image, to_network, to_pixels, to_unit
from .masks import check_share, check_strength, fit_mask, mix
from .network.generator import Generator
from .painting import SHRINK_WORK, UPSAMPLE_WORK, Brush, picture_of, samples
from .upsampling import check_painting_size, painted_size

Progress = Callable[[int, int], None]
Detail = Literal["photo", "painting"]
DETAILS: tuple[Detail, ...] = ("photo", "painting")

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
    painting_size: int = 0,
    detail: Detail = "photo",
    colour: float = 1.0,
    preview: Callable[[Tensor], None] | None = None,
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
        plan: how to run, from `plan_run` for the size at which the network paints (`plan_size`);
            None chooses one.
        statistics: of `gather_statistics` with this generator, so that pictures painted under them
            share one palette; None: each picture's own.
        progress: called with (work done, work in all) as the run goes on; what it raises stops the
            run and comes out of this function.
        painting_size: pixels of the longer side at which the network paints; the painting is then
            brought to the image's own size along its edges (see `upsampling`). 0, or as many as
            the image has or more: the image's own size, exactly.
        detail: whose edges those are: "photo", or "painting" for those of the full-size painting,
            which takes the time and the memory of painting it as well.
        colour: 1 gives the painting's colours, 0 the photo's hue and chroma under the painting's
            lightness (in Oklab), between them a mixture.
        preview: called with the small painting [N, h, w, 3] float32 of pictures painted together,
            as soon as it is there.

    Returns:
        A new tensor of the image's shape, dtype and device, an ordinary one under whatever mode of
        torch it is called. Alpha is the image's.

    Raises:
        ImageError, MaskError, OptionError: an argument is not as said above.
        MemoryBudgetError: no plan fits the memory.
    """
    check_image(image)
    return _stylized(
        image,
        generator,
        strength,
        mask,
        plan,
        statistics,
        progress,
        painting_size,
        detail,
        colour,
        preview,
    )


def stylize_bytes(
    pixels: Tensor,
    generator: Generator,
    *,
    painting_size: int,
    strength: float = 1.0,
    mask: Tensor | None = None,
    plan: RunPlan | None = None,
    statistics: Statistics | None = None,
    progress: Progress | None = None,
    colour: float = 1.0,
    preview: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """`stylize` guided by the photo, from bytes to bytes, with no picture of floats at full size.

    Args:
        pixels: RGB or RGBA [B, H, W, 3 or 4] uint8, larger than `painting_size`.

    The others are those of `stylize`.
    """
    return _stylized(
        pixels,
        generator,
        strength,
        mask,
        plan,
        statistics,
        progress,
        painting_size,
        "photo",
        colour,
        preview,
    )


def _stylized(
    image: Tensor,
    generator: Generator,
    strength: float,
    mask: Tensor | None,
    plan: RunPlan | None,
    statistics: Statistics | None,
    progress: Progress | None,
    painting_size: int,
    detail: Detail,
    colour: float,
    preview: Callable[[Tensor], None] | None,
) -> Tensor:
    _check_generator(generator)
    strength = check_strength(strength)
    colour = check_share(colour, "colour is a number from 0 (the photo's) to 1 (the painting's)")
    check_painting_size(painting_size)
    check_detail(detail)
    _check_statistics(statistics, generator)
    with torch.inference_mode(False):
        result = torch.empty_like(image, requires_grad=False)
    with plain_arithmetic(image.device, generator.device):
        image = image.detach()
        batch, height, width, _ = image.shape
        masks = None if mask is None else fit_mask(mask, image)
        small = painted_size(height, width, painting_size)
        largest = plan_size(height, width, painting_size, detail)
        plan = plan or plan_run(generator, *largest, batch=batch, masked=mask is not None)

        painted: list[int] = []
        for index in range(batch):
            if strength == 0 or (masks is not None and not bool(masks[index].any())):
                result[index] = image[index]
            else:
                painted.append(index)
        groups = [painted[at : at + plan.batch] for at in range(0, len(painted), plan.batch)]
        work = _work(generator, small, (height, width), plan.level, detail, statistics)
        steps = _steps(work * len(groups), progress)
        transfers = Transfers(generator.device)
        brush = Brush(generator, plan, statistics, steps, transfers)

        for group in groups:
            # Indexing with a list copies; one image, the usual case, is a view.
            chosen = slice(group[0], group[0] + 1) if len(group) == 1 else group
            photo, room = image[chosen], result[chosen]
            amount = None if masks is None else masks[chosen]

            def finish(
                start: int,
                rows: Tensor,
                photo: Tensor = photo,
                room: Tensor = room,
                amount: Tensor | None = amount,
            ) -> None:
                stop = start + rows.shape[1]
                original = to_unit(photo[:, start:stop])
                if colour < 1:
                    seen = transfers.up(original[..., :3]).to(torch.float32).clamp(0, 1)
                    rows = mix_colours(rows.movedim(-1, 1), seen.movedim(-1, 1), colour)
                    rows = rows.movedim(1, -1)
                share = strength if amount is None else strength * amount[:, start:stop]

                def lay(rows: Tensor) -> None:
                    room[:, start:stop] = to_pixels(mix(original, rows, share), room.dtype)

                transfers.down(rows, original.device, lay)

            if small == (height, width):
                brush.paint(photo, amount, finish)
            else:
                guided = room if detail == "painting" else None
                brush.paint_small(photo, amount, small, guided, finish, preview)
            transfers.flush()
            if not isinstance(chosen, slice):
                result[chosen] = room
    return result


def check_detail(detail: str) -> None:
    """Refuse what is neither of `DETAILS`.

    Raises:
        OptionError: it is not.
    """
    if detail not in DETAILS:
        raise OptionError(f"detail is one of {', '.join(DETAILS)}, not {detail}")


def plan_size(height: int, width: int, painting_size: int, detail: str) -> tuple[int, int]:
    """Height and width of the largest picture that the network paints for one of that size."""
    if detail == "painting":
        return height, width
    return painted_size(height, width, painting_size)


def _work(
    generator: Generator,
    small: tuple[int, int],
    full: tuple[int, int],
    level: Level,
    detail: Detail,
    statistics: Statistics | None,
) -> int:
    """What the steps of a group add up to."""
    side, gathers = generator.design.min_side, statistics is None

    def network(size: tuple[int, int]) -> int:
        return total_work(generator, max(size[0], side), max(size[1], side), level, gathers=gathers)

    if small == full:
        return network(full)
    again = detail == "painting"
    rest = full[0] * full[1] * ((1 + again) * SHRINK_WORK + UPSAMPLE_WORK)
    return network(small) + (network(full) if again else 0) + rest


def gather_statistics(
    images: Sequence[Tensor],
    generator: Generator,
    *,
    budget: int | None = None,
    progress: Progress | None = None,
    painting_size: int = 0,
    masks: Sequence[Tensor] | None = None,
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
        painting_size: as for `stylize`, which is to be given the same.
        masks: one for each of `images`, as for `stylize`: what they leave out counts for nothing,
            nor does a picture that they leave out, unless all are.

    Returns:
        What `stylize` takes as `statistics`.

    Raises:
        ImageError, MaskError: no image, or an argument that is not as said above.
        MemoryBudgetError: they do not fit the memory together.
    """
    _check_generator(generator)
    if not images:
        raise ImageError("statistics are gathered from one image or more, and none was given")
    for image in images:
        check_image(image)
    check_painting_size(painting_size)
    device, transfers = Device.of(generator), Transfers(generator.device)
    with plain_arithmetic(generator.device, *(image.device for image in images)):
        side = generator.design.min_side
        pictures, weights = samples(images, masks, painting_size, side)
        sums = [picture.sum((1, 2), dtype=torch.float64).cpu() for picture in pictures]
        pixels = sum(picture.shape[1] * picture.shape[2] for picture in pictures)
        mean = sum(sums[1:], sums[0]) / pixels
        colour = to_network(mean[:, None, None])[:, :, 0, 0]

        budget = device.free_memory() if budget is None else budget
        share = None if budget is None else budget // len(pictures)
        plans = [
            plan_run(generator, p.shape[1], p.shape[2], budget=share, masked=w is not None)
            for p, w in zip(pictures, weights, strict=True)
        ]
        chosen = {plan.level for plan in plans}
        level: Level = next(level for level in _FRUGAL_FIRST if level in chosen)
        work = sum(total_work(generator, p.shape[1], p.shape[2], level) for p in pictures)
        moments = stream.gather(
            generator,
            [replace(plan, level=level, batch=1) for plan in plans],
            [
                picture_of(picture, colour, device, transfers, weight)
                for picture, weight in zip(pictures, weights, strict=True)
            ],
            step=_steps(work, progress),
        )
        if progress:
            progress(work, work)  # the last stage has no statistics to gather
    return Statistics(colour, moments)


def _check_generator(generator: Generator) -> None:
    if not isinstance(generator, Generator):  # pyright: ignore[reportUnnecessaryIsInstance]
        found = type(generator).__name__
        raise OptionError(f"generator is what load_generator gives, not of type {found}")


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
