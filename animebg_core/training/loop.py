"""The loop of every training here: steps, the mean of weights over them, a state to go on from."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import TrainingError
from ..files.whole import whole_file
from .optimizer import RelativeMuon

STATE = "state.pt"
_OF_A_MATRIX = 0.3  # Adam's rate against Muon's, for what is no matrix inside the network


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is.

    Attributes:
        step: steps done.
        pace: seconds a step, since it was begun or gone on with; 0 before the first.
        losses: means over the last hundred steps or so.
        left: seconds to the end, at that pace.
        looked: what `look` found just now, if it looked.
    """

    step: int
    pace: float
    losses: tuple[float, ...]
    left: float
    looked: Mapping[str, float] | None = None


class Training(ABC):
    """Weights in training, and everything that a resumed run needs.

    What a training is about is in a class of its own: a step, and a look at what it has reached.
    The same seed and number of steps give the same weights, interrupted or not (on one thread).

    Args:
        folder: where its state lies; made.
        values: the weights by name, float32; copied.
        device: where it trains.
        relative: the matrices move by Muon, the rest by Adam; False: all by Adam.

    Attributes:
        values: the weights as they are now.
        average: their mean over the last steps, which is what is kept.
        step: steps done.
        seconds: spent on them, in all runs.
        history: what was found at each look.
    """

    def __init__(
        self,
        folder: Path,
        values: Mapping[str, Tensor],
        *,
        device: torch.device,
        relative: bool = True,
    ) -> None:
        self.folder = folder
        self.device = device
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.average = {name: value.detach().clone() for name, value in values.items()}
        self.values = {
            name: value.detach().clone().requires_grad_() for name, value in values.items()
        }
        matrices = [
            value
            for name, value in self.values.items()
            if relative and value.dim() == 4 and not name.split(":")[-1].startswith("output")
        ]
        known = {id(value) for value in matrices}
        rest = [value for value in self.values.values() if id(value) not in known]
        self.muon = RelativeMuon(matrices)
        self.adam = torch.optim.Adam(rest, betas=(0.9, 0.99))

    # --- What each training says itself ---

    @abstractmethod
    def train_step(self) -> tuple[float, ...]:
        """One step, by way of `learn`; its losses."""

    @abstractmethod
    def look(self) -> dict[str, float]:
        """What the averaged network reaches on what it does not learn from."""

    # --- State ---

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; what a training has besides, it adds."""
        return {
            "values": {name: value.detach() for name, value in self.values.items()},
            "average": self.average,
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        with torch.no_grad():
            for name, value in state["values"].items():
                self.values[name].copy_(value)
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.history = state["step"], state["history"]
        self.seconds = state.get("seconds", 0.0)  # older states have none

    def save(self) -> None:
        """Write the state; a half-written one is never seen under its name.

        Raises:
            OSError: it cannot be written; the one before is still there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / STATE) as file:
            torch.save(self.state(), file)

    # --- Steps ---

    def learn(self, loss: Tensor, rate: float, *, keep: float = 0.996) -> None:
        """Move the weights against the gradient of `loss`, by `rate` of their size.

        Args:
            keep: how much of the mean of the weights stays at each step, at most.
        """
        torch.autograd.backward(loss)
        moved = [value for value in self.values.values() if value.grad is not None]
        torch.nn.utils.clip_grad_norm_(moved, 1.0)
        with _undisturbed():
            self.muon.step(rate)
            for group in self.adam.param_groups:
                group["lr"] = rate * _OF_A_MATRIX
            cast(Any, self.adam).step()
            for value in self.values.values():
                value.grad = None
            keep = min(keep, (4 + self.step) / (8 + self.step))
            with torch.no_grad():
                names = list(self.average)
                torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
                    [self.average[name] for name in names],
                    [self.values[name] for name in names],
                    1 - keep,
                )
            self.step += 1

    def go(
        self,
        steps: int,
        *,
        look_every: int,
        save_seconds: float,
        seconds: float = math.inf,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Train until `steps` are done, or `seconds` are spent, in all runs.

        Args:
            look_every: look after each so many steps, and after the last.
            save_seconds: write the state after so many seconds, and at the end, however it comes.
            tell: called after each step; may raise to stop the training.
        """
        began, first, saved = time.monotonic(), self.step, time.monotonic()
        before = self.seconds
        recent: tuple[float, ...] = ()
        try:
            if self.step and self.step % look_every == 0 and self._looked_at() != self.step:
                self._note(0.0)  # the run before was ended while it looked
            while self.step < steps and self.seconds < seconds:
                losses = self.train_step()
                recent = tuple(
                    old + 0.01 * (new - old)
                    for old, new in zip(recent or losses, losses, strict=True)
                )
                self.seconds = before + time.monotonic() - began
                looked = None
                ends = self.step == steps or self.seconds >= seconds
                if self.step % look_every == 0 or ends:
                    looked = self._note(recent[0])
                now = time.monotonic()
                self.seconds = before + now - began
                pace = (now - began) / (self.step - first)
                left = max(0.0, min(pace * (steps - self.step), seconds - self.seconds))
                tell(Progress(self.step, pace, recent, left, looked))
                if now - saved > save_seconds:
                    self.save()
                    saved = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            self.save()
            raise
        self.save()

    def _note(self, loss: float) -> dict[str, float]:
        looked = self.look()
        self.history.append({"step": self.step, "loss": loss, **looked})
        return looked

    def _looked_at(self) -> int:
        """The step at which `look` was last through."""
        return self.history[-1]["step"] if self.history else 0


@contextmanager
def _undisturbed() -> Generator[None]:
    """Ctrl-C and SIGTERM wait for the end of this: an update is made whole or not at all."""
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    main = threading.current_thread() is threading.main_thread()
    if not main or None in before.values():  # signals are none of this thread's, or not Python's
        yield
        return
    for number in before:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)


def read_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in a folder, or None. Only tensors and plain values are read; no code runs.

    Raises:
        TrainingError: it is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # noqa: BLE001 - of damaged bytes torch raises many kinds
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__}): delete {folder} to begin anew"
        ) from error
