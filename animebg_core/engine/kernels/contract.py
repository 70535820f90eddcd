"""What a kernel is: one convolution of a network, read through the norm before it, by rows.

Wide enough for a fused one: source rows, norm and ReLU go in; rows and their moments come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ...network.design import Conv, Stage
from ...network.generator import ConvWeights, Generator
from ..device import Scratch
from ..schedule import Step
from ..statistics import Gathering, Norm


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution with its weights.

    Attributes:
        bias: the bias is added. A norm takes it away again, so that it need not be before one.
        tanh: what is made goes through tanh, which is the kernel's to do: it is the picture.
    """

    conv: Conv
    weights: ConvWeights
    bias: bool
    tanh: bool = False

    @staticmethod
    def of(generator: Generator, stage: Stage, index: int) -> Layer:
        """The convolution number `index` of a stage."""
        is_last = index + 1 == len(stage.convs)
        weights = generator.weights(stage).conv(index)
        normed = stage.norm and is_last
        return Layer(stage.convs[index], weights, bias=not normed, tanh=is_last and not normed)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a kernel takes beside the maps, for strips of some rows.

    Attributes:
        window: as long as its rows are asked for, through a sweep.
        made: for one strip: the rows it gives, and what is made beside them and freed again.
        weights: what it prepares of its weights in `Scratch`, for as long as a sweep goes.
        scratch: of each buffer that it takes from `Scratch`, by name.
        library: what those who do the work take beside the tensors, however many strips there are.
        headroom: rows, not bytes, by which a map should begin below what is made of it, where that
            is written over it: then nothing is written that is still to be read, and nothing need
            be copied. 0 where source rows are copied in any case.
    """

    window: int
    made: int
    weights: int = 0
    scratch: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    library: int = 0
    headroom: int = 0


class Rows(Protocol):
    """Rows of a map [N, C, height, width], each asked for once, from top to bottom."""

    height: int
    width: int

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as [N, C, stop - start, width], raw: before any norm of their own, the
        picture's behind their tanh.

        They may lie in scratch memory: they are good until the next rows are asked for.
        """
        ...


@runtime_checkable
class Stored(Rows, Protocol):
    """Rows of a map in memory, which may be read where they lie, and again, until they are
    overwritten.
    """

    data: Tensor  # the whole map


@runtime_checkable
class Made(Rows, Protocol):
    """Rows that a kernel makes."""

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Rows [start, stop) as `rows` gives them, in one piece or several, whichever suits the
        kernel: the number of each piece's first row, and the piece.
        """
        ...

    def store(
        self,
        start: int,
        stop: int,
        out: Tensor | None,
        weight: Tensor | None,
        gathering: Gathering | None,
    ) -> None:
        """Make rows [start, stop); keep them, gather their statistics, or both.

        Args:
            out: where they are to lie, [N, C, stop - start, width] of any float dtype. It may
                be the rows [start, stop) of the map that is read, or lie so much above them as
                `Footprint.headroom` asked for. None: nowhere.
            weight: [N, 1, stop - start, width] float32, what each pixel counts for; None: 1 each.
            gathering: takes the moments of the rows as they were stored. None: nobody wants them.
        """
        ...


class Kernel(Protocol):
    """One convolution of a network, made ready for one device and dtype; it keeps no state.

    Attributes:
        cuts_strips: it cuts strips into what its caches hold, so that higher ones are faster.
    """

    cuts_strips: ClassVar[bool]

    def footprint(self, step: Step, images: int, rows: int) -> Footprint:
        """What strips of `rows` output rows take, for so many pictures at once."""
        ...

    def open(self, source: Rows, step: Step, norm: Norm | None, scratch: Scratch) -> Made:
        """Its rows for one sweep, made of those of `source`.

        Args:
            norm: applied to what is read, and behind it the ReLU of `step.before`; padding is put
                around the result. None: what is read is as it should be.
        """
        ...
