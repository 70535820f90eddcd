"""A style of one's own: a network's palette brought to that of some frames, and learned by it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.torch import save  # pyright: ignore[reportUnknownVariableType]

from ..errors import TrainingError
from ..files.whole import whole_file
from ..network.checkpoint import published_names
from ..network.design import LITE
from ..network.generator import Generator
from .data import cut, to_input, to_pixels, variants
from .drawing import LOOK_EVERY, Drawing
from .loop import Progress, Training, read_state
from .losses import far_loss, felt_picture, picture_loss, spike_loss
from .network import exported, run_maps
from .palette import PHOTOGRAPHS, ColourMap, colour_map, linear_map, moments
from .pictures import Pictures

PALETTE_STEPS = 240
SAVE_SECONDS = 60.0
FEWEST_FRAMES = 12
FEWEST_PHOTOS = 8
_MEASURED, _MEASURED_SIZE = 400, 320  # of the frames and photos, for the colour map
_RATE = 0.004  # of a weight's size, a step, at the beginning
_ON_SHEET, _SHEET_SIZE = 10, 320

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Order:
    """What a style is to be made of.

    Attributes:
        start: the network that is taught.
        start_name: what it is called.
        frames: whose palette is wanted.
        photos: what it is to paint; None where there are none.
        match: 0 to 1, how far its palette goes to that of the frames.
        seed: of all that is drawn.
    """

    start: Generator
    start_name: str
    frames: Pictures
    photos: Pictures | None
    match: float = 1.0
    seed: int = 1

    def origin(self) -> dict[str, str]:
        """What tells one order from another, as a network's metadata can hold it."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.start.named_parameters()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        photos = self.photos
        return {
            "start": self.start_name,
            "start_sha256": digest.hexdigest(),  # of its tensors
            "frames": str(len(self.frames)),
            "frames_sha256": self.frames.sha256(),
            "photos": str(len(photos) if photos else 0),
            "photos_sha256": photos.sha256() if photos else "",
            "match": str(self.match),
            "seed": str(self.seed),
        }


def state_folder(target: Path) -> Path:
    """Where what a run needs to go on lies, until `target` is finished."""
    return target.with_name(f".{target.name}.animebg")


def sheet_path(target: Path) -> Path:
    """The preview beside `target`."""
    return target.with_suffix(".jpg")


def painted(generator: Generator, rgb: Pixels) -> Pixels:
    """What a network makes of uint8 RGB [H, W, 3]: the same."""
    height, width = rgb.shape[:2]
    with torch.no_grad():
        tensors = dict(generator.named_parameters())
        image = to_input(rgb).to(generator.device)
        made = run_maps(generator.stages, tensors, image, torch.float32)
    return to_pixels(made["output"])[:height, :width]


def stand_ins(frames: Pictures) -> Pictures:
    """Frames in the colours of photographs, for those who have no photographs at hand."""
    measured = moments(_measured(frames))
    to_photographs = linear_map(measured, PHOTOGRAPHS)
    return Pictures({name: to_photographs(pixels) for name, pixels in frames.pixels.items()})


class Palette(Training):
    """The start learns to paint what it painted before, through a colour map."""

    def __init__(
        self, folder: Path, order: Order, pictures: Pictures, towards: ColourMap, steps: int
    ) -> None:
        super().__init__(folder, dict(order.start.named_parameters()), device=order.start.device)
        self.order, self.start, self.pictures, self.towards = order, order.start, pictures, towards
        self.origin = order.origin()
        self.steps = steps
        self.plan = variants(pictures.names, steps, order.seed)

    def state(self) -> dict[str, Any]:
        """See `Training`."""
        towards = torch.from_numpy(np.stack([self.towards.weights, self.towards.whites]))
        return super().state() | {"origin": self.origin, "towards": towards}

    def train_step(self) -> tuple[float, ...]:
        """See `Training`."""
        photo = cut(self.plan[self.step], self.pictures.read)
        wanted = to_input(self.towards(painted(self.start, photo))).to(self.device)
        image = to_input(photo).to(self.device)
        maps = run_maps(self.start.stages, self.values, image, torch.float32)
        loss = picture_loss(felt_picture(maps)[..., : photo.shape[0], : photo.shape[1]], wanted)
        cost = loss + 0.05 * far_loss(maps) + spike_loss(self.start.stages, maps, image)
        rate = _RATE * min(1.0, (self.step + 1) / 10) * (1 - self.step / self.steps)
        self.learn(cost, rate, keep=0.9)
        return (float(loss.detach()),)

    def look(self) -> dict[str, float]:
        """Nothing: the steps are few, and always as many."""
        return {}

    def network(self) -> Generator:
        """What was learned so far."""
        values = {name: value.detach().clone() for name, value in self.average.items()}
        return Generator(values).to(self.device).eval()


def begin(order: Order, target: Path) -> Palette:
    """A training for `target`, or the one that was interrupted there.

    Raises:
        TrainingError: another was interrupted there, or its state is damaged.
    """
    folder = state_folder(target)
    found = read_state(folder, order.start.device)
    if found and found["origin"] != (now := order.origin()):
        before: Mapping[str, str] = found["origin"]
        other = [name for name in now if before.get(name) != now[name] and name[-6:] != "sha256"]
        other = other or [name[:-7] for name in now if before.get(name) != now[name]]
        raise TrainingError(
            f"{target} was begun with other {' and '.join(other)}: name another output, or delete"
            f" {folder}"
        )
    pictures = order.photos or stand_ins(order.frames)
    if found:
        towards = ColourMap(*found["towards"].cpu().numpy().reshape(-1, 10, 3))
    else:
        source = [painted(order.start, pixels) for pixels in _measured(pictures)]
        towards = colour_map(source, _measured(order.frames), order.match)
    training = Palette(folder, order, pictures, towards, PALETTE_STEPS)
    if found:
        training.take(found)
    return training


def _drawing_folder(palette: Palette) -> Path:
    return palette.folder / "drawing"


def drawing(palette: Palette) -> Drawing:
    """What goes on from a palette that was learned, or went on from it before.

    Raises:
        TrainingError: its state is damaged.
    """
    order = palette.order
    photos, folder = palette.pictures, _drawing_folder(palette)
    return Drawing(folder, order.start, palette.average, order.frames, photos, order.seed)


Report = Callable[[str, int], Callable[[Progress], None]]  # of what is learned, in how many steps


def run(
    palette: Palette, target: Path, version: str, report: Report, *, hours: float = 0.0
) -> None:
    """To the end, or until a report or a signal stops it; either way `target` holds what was
    learned.

    Args:
        hours: how long the drawing is learned after the palette, in all runs, at most. What was
            learned of it in another run is kept.

    Raises:
        OSError: a file cannot be written; what was saved before is still there.
    """
    drawn: Drawing | None = None
    try:
        tell = report("palette", palette.steps)
        palette.go(palette.steps, look_every=1 << 30, save_seconds=SAVE_SECONDS, tell=tell)
        if hours or _drawing_folder(palette).exists():
            drawn = drawing(palette)
            drawn.go(
                drawn.steps,
                look_every=LOOK_EVERY,
                save_seconds=SAVE_SECONDS,
                seconds=hours * 3600,
                tell=report("drawing", drawn.steps),
            )
    except (KeyboardInterrupt, SystemExit):
        export(palette, drawn, target, version)
        raise
    write_sheet(palette, drawn, target)
    export(palette, drawn, target, version)
    shutil.rmtree(palette.folder)


def export(palette: Palette, drawn: Drawing | None, target: Path, version: str) -> None:
    """The network that is kept, in float16, with its origin in the metadata, and no frame."""
    stages = palette.start.stages
    blocks = sum(stage.name.endswith("a") for stage in stages if stage.in_block)
    names = {} if palette.start.design is LITE else published_names(blocks)
    tensors = exported(stages, drawn.best if drawn else palette.average, names)
    metadata = {"format": "pt", **palette.origin, "steps": str(palette.step)}
    if drawn:
        metadata["drawing_steps"] = str(drawn.best_step)
    metadata |= {"made_by": f"animebg {version} train"}
    with whole_file(target, folder=palette.folder) as file:
        file.write(save(tensors, metadata))


def write_sheet(palette: Palette, drawn: Drawing | None, target: Path) -> None:
    """Ten photos, each as it is, by the start, in the colours of the frames, and as learned."""
    names = palette.pictures.names
    step = max(1, len(names) // _ON_SHEET)
    coloured = palette.network()
    network = drawn.network() if drawn else coloured
    rows: list[list[Pixels]] = []
    for name in names[::step][:_ON_SHEET]:
        photo = np.array(palette.pictures.read(name, _SHEET_SIZE))
        first = painted(palette.start, photo)
        colours = painted(coloured, photo) if drawn else palette.towards(first)
        rows.append([photo, first, colours, painted(network, photo)])
    width = max(row[0].shape[1] for row in rows) + 4
    heights = [row[0].shape[0] + 4 for row in rows]
    sheet = Image.new("RGB", (4 * width, 16 + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    last = ("palette", "drawing") if drawn else ("palette of the frames", "learned")
    for column, title in enumerate(("photo", "start", *last)):
        pen.text((column * width + 2, 2), title, fill="black")
    top = 16
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (column * width, top))
        top += height
    with whole_file(sheet_path(target), folder=palette.folder) as file:
        sheet.save(file, "JPEG", quality=90)


def _measured(pictures: Pictures) -> list[Pixels]:
    """Some of them, small."""
    names = pictures.names
    step = -(-len(names) // _MEASURED)
    return [np.array(pictures.read(name, _MEASURED_SIZE)) for name in names[::step]]
