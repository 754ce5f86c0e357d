"""VideoMAE features: released names, and what the features see of a video."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cami2v.evaluation.videomae import VideoMAEDetector, VideoMAEShape, load_videomae

WIDTH, LAYERS, PATCH = 32, 2, 56
SHAPE = VideoMAEShape(width=WIDTH, layers=LAYERS, num_heads=2, mlp_width=48, patch_size=PATCH)


def released() -> dict[str, Tensor]:
    """Return random weights by the names and shapes of VideoMAE V2's fine-tuned files."""
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (WIDTH, 3, 2, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,),
        "fc_norm.weight": (WIDTH,), "fc_norm.bias": (WIDTH,), "head.weight": (174, WIDTH), "head.bias": (174,),
    }  # fmt: skip
    for layer in range(LAYERS):
        shapes |= {
            f"blocks.{layer}.{name}": shape
            for name, shape in {
                "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "attn.q_bias": (WIDTH,), "attn.v_bias": (WIDTH,),
                "attn.qkv.weight": (3 * WIDTH, WIDTH), "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
                "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,), "mlp.fc1.weight": (48, WIDTH), "mlp.fc1.bias": (48,),
                "mlp.fc2.weight": (WIDTH, 48), "mlp.fc2.bias": (WIDTH,),
            }.items()
        }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def saved(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"module": {name: value.half() for name, value in state.items()}}, folder / "vit.pth")
    return folder / "vit.pth"


def video(frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(0, 256, (1, 3, frames, 40, 60), generator=generator, dtype=torch.uint8)


def features(network: VideoMAEDetector, frames: Tensor) -> Tensor:
    with torch.no_grad():
        return network(frames)


def test_released_weights_go_where_they_belong(tmp_path: Path) -> None:
    state = {name: value.half().float() for name, value in released().items()}
    network = load_videomae(saved(tmp_path, state), SHAPE)
    loaded = network.state_dict()
    attention = "encoder.encoder.layer.1.attention.attention"
    for number, part in enumerate(("query", "key", "value")):
        expected = state["blocks.1.attn.qkv.weight"][WIDTH * number : WIDTH * (number + 1)]
        assert torch.equal(loaded[f"{attention}.{part}.weight"], expected)
    for ours, theirs in {
        f"{attention}.query.bias": "blocks.1.attn.q_bias",
        f"{attention}.value.bias": "blocks.1.attn.v_bias",
        "norm.weight": "fc_norm.weight",
    }.items():
        assert torch.equal(loaded[ours], state[theirs])
    assert features(network, video(16)).shape == (1, WIDTH)
    assert next(network.parameters()).device.type == "cpu"


def test_positions_are_stretched_over_time_and_an_odd_frame_is_not_seen(tmp_path: Path) -> None:
    network = load_videomae(saved(tmp_path, released()), SHAPE)
    long = video(25)
    even = features(network, long[:, :, :24])
    assert torch.equal(features(network, long), even)
    assert not torch.allclose(features(network, long[:, :, :24].flip(2)), even, atol=1e-4)
    first = features(network, video(16))
    features(network, video(10))
    assert torch.equal(features(network, video(16)), first)
    with pytest.raises(ValueError, match=r"videos of 1 frame\(s\); it needs 2 or more"):
        features(network, video(1))


def test_files_that_are_not_quite_the_network_are_refused(tmp_path: Path) -> None:
    state = released()
    lost = {name: value for name, value in state.items() if name != "blocks.0.mlp.fc1.weight"}
    with pytest.raises(ValueError, match=r"1 tensors missing, first encoder.encoder.layer.0.intermediate.dense.weight"):
        load_videomae(saved(tmp_path, lost), SHAPE)
    with pytest.raises(ValueError, match=r"1 of other names or shapes, first blocks.1.gamma_1"):
        load_videomae(saved(tmp_path, state | {"blocks.1.gamma_1": torch.ones(WIDTH)}), SHAPE)
