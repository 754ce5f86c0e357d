"""The one place where attention is computed, and the module that holds a layer's heads and backend."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cami2v.attention import flex, sdpa, triton, xformers
from cami2v.attention.choice import AttentionChoice, machine_obstacle, pick, refusal
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask


def attend(
    query: Float[Tensor, "batch queries query_width"],
    key: Float[Tensor, "batch keys query_width"],
    value: Float[Tensor, "batch keys value_width"],
    *,
    num_heads: int,
    mask: AttentionMask | None = None,
    always_visible: int = 0,
    backend: AttentionChoice = "auto",
) -> Float[Tensor, "batch queries value_width"]:
    """Compute multi-head scaled dot-product attention.

    `always_visible` leading keys (register tokens) are seen by every query, `mask` describes which of the others are.
    A query without any key gets zeros. Raises ValueError for a backend that cannot do this here.
    """
    if mask is not None and mask.shape != (query.shape[0], query.shape[1], key.shape[1] - always_visible):
        raise ValueError(
            f"attention mask: describes (batch, queries, keys) {mask.shape}, attention is over "
            f"{(query.shape[0], query.shape[1], key.shape[1] - always_visible)}; the two must be of the same clips and "
            "size"
        )
    query, key, value = (rearrange(_autocast(x), "b n (h c) -> b h n c", h=num_heads) for x in (query, key, value))
    differentiated = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    chosen = pick(backend, mask, device=query.device, differentiated=differentiated)
    if chosen == "xformers":
        attended = xformers.attend(query, key, value)
    elif chosen == "flex":
        attended = flex.attend(query, key, value, mask, always_visible)
    elif chosen == "triton" and mask is not None:
        attended = triton.attend(query, key, value, mask, always_visible)
    elif isinstance(mask, EpipolarBands):
        attended = sdpa.attend_bands(query, key, value, mask, always_visible)
    else:
        attended = sdpa.attend(query, key, value, mask, always_visible)
    return rearrange(attended, "b h n c -> b n (h c)")


def prepare(mask: AttentionMask, *, always_visible: int, backend: AttentionChoice) -> None:
    """Build what attention under a mask shares between layers, denoising steps and branches, ahead of its first use."""
    if not isinstance(mask, EpipolarBands):
        return
    chosen = pick(backend, mask, device=mask.fundamental.device, differentiated=False)
    if chosen == "flex":
        flex.block_mask(mask, always_visible)
    elif chosen == "triton":
        triton.prepare(mask)
    else:
        sdpa.prepare(mask)


class AttentionCore(nn.Module):
    """The part of an attention layer without parameters: heads, and the backend that `choose_attention` sets.

    `masked` says that this layer is going to hand in masks.
    """

    def __init__(self, *, num_heads: int, masked: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.masked = masked
        self.backend: AttentionChoice = "auto"

    def forward(
        self,
        query: Float[Tensor, "batch queries query_width"],
        key: Float[Tensor, "batch keys query_width"],
        value: Float[Tensor, "batch keys value_width"],
        *,
        mask: AttentionMask | None = None,
        always_visible: int = 0,
    ) -> Float[Tensor, "batch queries value_width"]:
        """Attend with this layer's heads and backend."""
        return attend(
            query,
            key,
            value,
            num_heads=self.num_heads,
            mask=mask,
            always_visible=always_visible,
            backend=self.backend,
        )

    def prepare(self, mask: AttentionMask, *, always_visible: int) -> None:
        """Build what all layers share of a mask, ahead of its first use."""
        prepare(mask, always_visible=always_visible, backend=self.backend)

    def extra_repr(self) -> str:
        """Show the settings where the model is printed."""
        return f"num_heads={self.num_heads}, backend={self.backend}"


def choose_attention(model: nn.Module, choice: AttentionChoice) -> None:
    """Set the backend of every attention layer of a model.

    Raises ValueError, before anything is set, for one that cannot run on this machine or has no masks where the model
    needs them.
    """
    cores = [module for module in model.modules() if isinstance(module, AttentionCore)]
    obstacle = None if choice == "auto" else machine_obstacle(choice)
    if obstacle is not None:
        raise refusal(choice, obstacle)
    if choice == "xformers" and any(core.masked for core in cores):
        raise refusal(choice, "it has no masks described as bands, which this camera method's attention needs")
    for core in cores:
        core.backend = choice


def _autocast(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Do what autocast does for SDPA, for all backends."""
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))
