"""A film's drawing, as far as it can be learned without pairs: from the palette on."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import TrainingError
from ..network.generator import Generator
from .data import cut, plain_windows, to_input, to_pixels
from .loop import Training, read_state
from .losses import far_loss, felt_picture, picture_loss, spike_loss
from .network import run_maps
from .patches import SMALLEST, Patches
from .pictures import Pictures

Pixels = NDArray[np.uint8]

DRAWING_STEPS = 200  # at most: more gave nothing, see docs/own-style.md
LOOK_EVERY = 50  # steps
_RATE = 0.002  # of a weight's size, a step, at the beginning
_DESCRIBED, _DESCRIBED_SIZE = 160, 384  # paintings whose areas are typical, and their longest side
_HELD_OUT = 12  # windows of photos that are not learned from
# The farthest that tones may be from the palette's, in areas of 8 and of 32 pixels together.
_TONES_OFF = 0.1
_TONE, _PIXELS = 1.0, 0.2  # of the loss: how the palette's paintings hold it


class Drawing(Training):
    """The network goes on from the palette; what draws held-out photos best is kept.

    Args:
        start: the network that was taught the palette.
        palette: its weights after that, by name.

    Attributes:
        best: the weights that are kept, by name.
        best_step: after how many steps they were reached; 0: they are the palette's.
        distance: theirs, as `look` has it.

    Raises:
        TrainingError: most of the frames are too small, or the state in `folder` is damaged.
    """

    def __init__(
        self,
        folder: Path,
        start: Generator,
        palette: Mapping[str, Tensor],
        frames: Pictures,
        photos: Pictures,
        seed: int,
    ) -> None:
        super().__init__(folder, palette, device=start.device)
        self.stages, self.palette = start.stages, dict(palette)
        self.photos, self.seed, self.steps = photos, seed, DRAWING_STEPS
        names = photos.names
        every = max(2, len(names) // _HELD_OUT)
        learned = [name for place, name in enumerate(names) if place % every]
        self.plan = plain_windows(learned, DRAWING_STEPS, seed)
        self.held_out = plain_windows(names[::every][:_HELD_OUT], _HELD_OUT, seed)
        step = -(-len(learned) // _DESCRIBED)
        shown = [frame for frame in frames.pixels.values() if min(frame.shape[:2]) >= SMALLEST]
        if len(shown) < len(frames) / 2:
            raise TrainingError(
                f"frames: {len(frames) - len(shown)} of {len(frames)} are less than {SMALLEST}"
                " pixels a side, too small to learn a drawing from"
            )
        self.patches = Patches(shown, [self._typical(name) for name in learned[::step]], seed)
        self.best, self.best_step, self.distance = dict(palette), 0, 0.0
        if found := read_state(folder, self.device):
            self.take(found)
        else:
            self.distance = self.look()["distance"]

    def state(self) -> dict[str, Any]:
        """See `Training`."""
        kept = {"best": self.best, "best_step": self.best_step, "distance": self.distance}
        return super().state() | kept

    def take(self, state: Mapping[str, Any]) -> None:
        """See `Training`."""
        super().take(state)
        self.best = {name: value.to(self.device) for name, value in state["best"].items()}
        self.best_step, self.distance = state["best_step"], state["distance"]

    def _typical(self, name: Path) -> Pixels:
        picture = self.photos.read(name, _DESCRIBED_SIZE)
        size = (max(SMALLEST, picture.width), max(SMALLEST, picture.height))
        return to_pixels(self._in_palette(np.array(picture.resize(size))))

    @torch.no_grad()
    def _in_palette(self, photo: Pixels) -> Tensor:
        image = to_input(photo).to(self.device)
        made = run_maps(self.stages, self.palette, image, torch.float32)["output"]
        return made[..., : photo.shape[0], : photo.shape[1]]

    def _costs(
        self, maps: Mapping[str, Tensor], wanted: Tensor, number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of a painting, given that in the palette: of its patches, its tones and its pixels."""
        draw = torch.Generator().manual_seed(self.seed + number)
        made = felt_picture(maps)[..., : wanted.shape[2], : wanted.shape[3]]
        matched = self.patches.matched(wanted, draw)
        tones = [F.avg_pool2d(made - wanted, size).square().mean() for size in (8, 32)]
        tone = torch.stack([(part + 1e-5).sqrt() for part in tones]).sum()
        return self.patches.loss(made, matched, draw), tone, picture_loss(made, wanted)

    def train_step(self) -> tuple[float, ...]:
        """See `Training`."""
        photo = cut(self.plan[self.step], self.photos.read)
        wanted, image = self._in_palette(photo), to_input(photo).to(self.device)
        maps = run_maps(self.stages, self.values, image, torch.float32)
        patches, tone, pixels = self._costs(maps, wanted, self.step)
        cost = patches + _TONE * tone + _PIXELS * pixels
        cost = cost + 0.05 * far_loss(maps) + spike_loss(self.stages, maps, image)
        rate = _RATE * min(1.0, (self.step + 1) / 10) * (1 - self.step / self.steps)
        self.learn(cost, rate, keep=0.98)
        return float(patches.detach()), float(tone.detach()), float(pixels.detach())

    @torch.no_grad()
    def look(self) -> dict[str, float]:
        """The distance of patches on photos that are not learned from; the best weights so far
        are kept, of those that hold the palette's tones.
        """
        distance = off = 0.0
        for number, window in enumerate(self.held_out):
            photo = cut(window, self.photos.read)
            image = to_input(photo).to(self.device)
            maps = run_maps(self.stages, self.average, image, torch.float32)
            patches, tone, _ = self._costs(maps, self._in_palette(photo), -1 - number)
            distance += float(patches) / len(self.held_out)
            off += float(tone) / len(self.held_out)
        if self.step and distance < self.distance and off < _TONES_OFF:
            self.best = {name: value.clone() for name, value in self.average.items()}
            self.best_step, self.distance = self.step, distance
        return {"distance": distance, "tones": off}

    def network(self) -> Generator:
        """The best so far."""
        values = {name: value.detach().clone() for name, value in self.best.items()}
        return Generator(values).to(self.device).eval()
