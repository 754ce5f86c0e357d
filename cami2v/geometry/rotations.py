"""Rotations as axis-angle vectors and back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Map axis times angle (radians) to the rotation matrix: the exponential map of SO(3)."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(row, dim=-1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return torch.linalg.matrix_exp(torch.stack(rows, dim=-2))


def matrix_to_axis_angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Map a rotation matrix to axis times angle, the angle in [0, pi]: the logarithm of SO(3)."""
    quaternion = matrix_to_quaternion(rotation)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    half_sine = torch.linalg.vector_norm(imaginary, dim=-1, keepdim=True)
    angle = 2 * torch.atan2(half_sine, real)
    # angle / sin(angle / 2) tends to 2 at the identity.
    factor = torch.where(half_sine > 1e-12, angle / half_sine.clamp_min(1e-12), torch.full_like(angle, 2.0))
    return factor * imaginary


def matrix_to_quaternion(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Map a rotation matrix to a unit quaternion (real part first and not negative).

    Shepperd's method: of four equivalent formulas the one that divides by the largest component is taken, which stays
    accurate up to half turns.
    """
    m = {(row, column): rotation[..., row, column] for row in range(3) for column in range(3)}
    candidates = (
        (1 + m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]),
        (m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], 1 - m[0, 0] + m[1, 1] - m[2, 2], m[1, 2] + m[2, 1]),
        (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 - m[0, 0] - m[1, 1] + m[2, 2]),
    )
    stacked = torch.stack([torch.stack(candidate, dim=-1) for candidate in candidates], dim=-2)
    largest = torch.diagonal(stacked, dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = torch.take_along_dim(stacked, largest[..., None, None], dim=-2).squeeze(-2)
    quaternion = chosen / torch.linalg.vector_norm(chosen, dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
