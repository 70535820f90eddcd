"""Muon, with steps in proportion to each weight's own size.

Source: Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024). The
momentum of a weight's gradient, read as a matrix [out, in * k * k], is replaced by the nearest
orthogonal matrix, so that rare directions move as far as the common ones: the small networks learn
several times faster than with Adam.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix [m, n] with singular values near 1, by five Newton-Schulz steps."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-12)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class RelativeMuon:
    """Each step changes a weight by `rate` times its own norm.

    A norm follows nearly every convolution of the generator, so that the scale of its weight has no
    meaning, and only the relative size of a step has.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.momenta = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every weight that has a gradient."""
        for weight, momentum in zip(self.weights, self.momenta, strict=True):
            if weight.grad is None:
                continue
            momentum.lerp_(weight.grad, 1 - _MOMENTUM)
            ahead = weight.grad.lerp(momentum, _MOMENTUM)  # Nesterov's
            update = orthogonal(ahead.flatten(1)).view_as(weight)
            # Where there is no gradient at all there is no step.
            weight.sub_(update, alpha=rate * float(weight.norm() / update.norm().clamp_min(1e-6)))

    def state_dict(self) -> dict[str, Any]:
        """The momenta."""
        return {"momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from them."""
        self.momenta = state["momenta"]
