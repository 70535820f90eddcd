"""How areas of a painting would look if they were drawn as the frames are, without pairs.

Areas of paintings are matched with areas of frames by colour, by how much is drawn in them and by
their height in the picture, by optimal transport as in `palette`. What is asked of a painting is
that its patches, all together, have the distribution of the patches of the areas matched with its
own (Elnekave and Weiss, "Generating natural images with direct patch distributions matching", ECCV
2022, with the content taken into account).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .data import to_input

Pixels = NDArray[np.uint8]

SMALLEST = 32  # pixels a side of a picture
_AREA = 16  # pixels a side
_KERNEL = 7  # pixels a side of a patch, at full size and at half
_AROUND = _KERNEL // 2
_KEPT = 30_000  # areas of all frames, 2 kB each
_QUERIES = 3_000  # areas of paintings, for the transport
_COLOUR = 0.15  # a difference in [-1, 1] that counts as much as the whole height of the picture
_SOFTNESS = 0.08  # of the matching: squared difference that is next to none
_ROUNDS = 50
_FILTERS = 24  # a loss, at each size
_FAINT = 0.02  # deviation of a filter's response that is not seen


class Patches:
    """Areas of frames, to be matched with areas of paintings.

    Args:
        frames: uint8 RGB [H, W, 3], at least `SMALLEST` pixels a side.
        paintings: the same, of photographs that are typical, in the palette of the frames.
        seed: of the choice of areas.
    """

    def __init__(self, frames: Sequence[Pixels], paintings: Sequence[Pixels], seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        each = max(1, _KEPT // len(frames))
        descriptions: list[Tensor] = []
        tiles: tuple[list[Tensor], list[Tensor]] = ([], [])
        for frame in map(to_input, frames):
            found = described(frame)
            chosen = torch.randperm(len(found), generator=draw)[:each]
            descriptions.append(found[chosen])
            for size, side in enumerate(tiles):
                side.append((cut_areas(frame, 2**size)[chosen] * 127).round().to(torch.int8))
        self._tiles = [torch.cat(side) for side in tiles]
        theirs = torch.cat(descriptions)
        ours = torch.cat([described(to_input(picture)) for picture in paintings])
        ours = ours[torch.randperm(len(ours), generator=draw)[:_QUERIES]]
        # How much is drawn is compared by rank, since the two are drawn differently.
        at = torch.linspace(0, 1, 101)
        self._ranks = torch.quantile(ours[:, 3:6], at, dim=0).T.contiguous()
        self._theirs = _placed(theirs, torch.quantile(theirs[:, 3:6], at, dim=0).T.contiguous())
        kernel = self._kernel(ours)
        self._columns = torch.ones(len(theirs))
        for _ in range(_ROUNDS):
            rows = 1 / (kernel @ self._columns).clamp_min(1e-30)
            self._columns = len(ours) / len(theirs) / (kernel.T @ rows).clamp_min(1e-30)

    def _kernel(self, areas: Tensor) -> Tensor:
        squares = torch.cdist(_placed(areas, self._ranks), self._theirs).square()
        return torch.exp(-(squares - squares.min(1, keepdim=True).values) / _SOFTNESS)

    def matched(self, picture: Tensor, draw: torch.Generator) -> Tensor:
        """For each area of a painting, the number of one of the frames' that is like it."""
        chances = self._kernel(described(picture)) * self._columns + 1e-30
        return torch.multinomial(chances, 1, generator=draw)[:, 0]

    def loss(self, made: Tensor, matched: Tensor, draw: torch.Generator) -> Tensor:
        """How far the patches of a picture are from those of the areas matched with it.

        Mean over filters that `draw` chooses, of the Wasserstein distance of their responses, in
        deviations of the frames' areas; at full size and at half.
        """
        total = made.new_zeros(())
        made = _whole(made)
        for size, tiles in enumerate(self._tiles):
            filters = torch.randn(_FILTERS, 3, _KERNEL, _KERNEL, generator=draw)
            # Half of them are smooth: noise sees what is fine alone.
            filters[::2] = F.avg_pool2d(F.pad(filters[::2], (1,) * 4), 3, 1)
            filters = filters - filters.mean((2, 3), keepdim=True)
            filters = (filters / filters.flatten(1).norm(dim=1)[:, None, None, None]).to(
                made.device
            )
            small = F.avg_pool2d(made, 2**size)
            ours = F.conv2d(F.pad(small, (_AROUND,) * 4, "reflect"), filters)[0].flatten(1)
            wanted = tiles[matched].to(made.device).float() / 127
            theirs = F.conv2d(wanted, filters).transpose(0, 1).flatten(1)
            ours, theirs = ours.sort(1).values, theirs.sort(1).values
            scale = theirs.std(1, keepdim=True) + _FAINT
            total = total + ((ours - theirs) / scale).abs().mean()
        return total


def described(picture: Tensor) -> Tensor:
    """Of the areas of [1, 3, H, W]: mean colour, how much is drawn at three sizes, height; [N, 7].

    Rows of areas from the top; what does not fill an area, on the right and below, is left out.
    """
    whole = _whole(picture)
    means = F.avg_pool2d(whole, _AREA)
    rows, columns = means.shape[2:]
    found = [means]
    smooth = whole
    for size in (1, 2, 4):
        smooth = F.avg_pool2d(whole, size)
        detail = smooth - F.avg_pool2d(F.pad(smooth, (1,) * 4, "reflect"), 3, 1)
        amount = detail.abs().mean(1, keepdim=True)
        found.append(F.avg_pool2d(amount, _AREA // size))
    height = torch.linspace(0, 1, rows, device=picture.device)[None, None, :, None]
    found.append(height.expand(1, 1, rows, columns))
    return torch.cat(found, 1)[0].flatten(1).T.cpu()


def cut_areas(picture: Tensor, shrink: int) -> Tensor:
    """The areas [N, 3, S, S] of a picture made `shrink` times smaller, with what is around them."""
    small = F.avg_pool2d(_whole(picture), shrink)
    side = _AREA // shrink
    around = F.pad(small, (_AROUND,) * 4, "reflect")
    tiles = around.unfold(2, side + 2 * _AROUND, side).unfold(3, side + 2 * _AROUND, side)
    return tiles[0].permute(1, 2, 0, 3, 4).flatten(0, 1).cpu()


def _whole(picture: Tensor) -> Tensor:
    high, wide = (side // _AREA * _AREA for side in picture.shape[2:])
    return picture[:, :, :high, :wide]


def _placed(areas: Tensor, ranks: Tensor) -> Tensor:
    """Descriptions [N, 7] where distances count, given the hundredths of what is drawn [3, 101]."""
    drawn = torch.stack(
        [torch.searchsorted(ranks[k], areas[:, 3 + k].contiguous()) / 100 for k in range(3)], 1
    )
    return torch.cat([areas[:, :3] / _COLOUR, drawn, areas[:, 6:]], 1)
