from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cami2v.encoders.openclip_image import OpenCLIPImageEncoder, preprocess
from cami2v.encoders.openclip_text import OpenCLIPTextEncoder


def tiny_text(**changes: Any) -> OpenCLIPTextEncoder:
    arguments: dict[str, Any] = {"width": 16, "num_heads": 2, "layers": 3}
    return OpenCLIPTextEncoder(**(arguments | changes))


def tiny_image(**changes: Any) -> OpenCLIPImageEncoder:
    arguments: dict[str, Any] = {"width": 16, "num_heads": 2, "layers": 2, "patch_size": 56}
    return OpenCLIPImageEncoder(**(arguments | changes))


def test_token_shapes() -> None:
    assert tiny_text().encode(["", "a room"]).shape == (2, 77, 16)
    assert tiny_image().encode(torch.zeros(2, 3, 40, 64)).shape == (2, 1 + 4 * 4, 16)


def test_last_published_text_block_is_not_built() -> None:
    assert len(tiny_text().tower.transformer.resblocks) == 2


@pytest.mark.parametrize("build", [tiny_text, tiny_image])
def test_random_towers_depend_on_their_seed_alone(build: type) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build(seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build(seed=3).state_dict(), build(seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_weights_file(tmp_path: Path) -> None:
    trained = tiny_text(seed=9)
    save_file(trained.state_dict(), tmp_path / "tower.safetensors")
    loaded = tiny_text(weights=tmp_path / "tower.safetensors")
    assert torch.equal(loaded.encode(["a room"]), trained.encode(["a room"]))


def test_captions_are_told_apart_up_to_the_context_length() -> None:
    encoder = tiny_text()
    tokens = encoder.encode(["left", "right", "left " * 200, "left " * 300])
    assert not torch.allclose(tokens[0], tokens[1])
    assert torch.equal(tokens[2], tokens[3])


def test_preprocessing_is_not_aliased() -> None:
    stripes = torch.ones(1, 3, 896, 896)
    stripes[..., ::2] = -1
    grey = preprocess(torch.zeros(1, 3, 896, 896))
    assert grey.shape == (1, 3, 224, 224)
    # Black and white stripes are 3.7 apart; without the blur every sample would be one or the other.
    assert (preprocess(stripes) - grey).abs().max() < 0.1


def test_half_precision_tower() -> None:
    tokens = tiny_image().to(torch.bfloat16).encode(torch.zeros(1, 3, 32, 32))
    assert tokens.dtype == torch.bfloat16
    assert torch.isfinite(tokens).all()
