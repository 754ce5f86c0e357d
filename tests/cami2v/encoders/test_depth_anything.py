"""The depth network: what it accepts, what its numbers depend on, and that nothing trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cami2v.checkpoints.load_released import load_released
from cami2v.checkpoints.released_names import our_names, released_names
from cami2v.encoders.depth_anything import DepthAnythingV2, nearest_multiple
from launch.build import build_model
from launch.compose import compose_config, instantiate_part
from tests.cami2v.checkpoints.released_files import all_zero, released_weights, save, tiny_model

SMALL: dict[str, Any] = {
    "width": 32,
    "num_heads": 2,
    "layers": 4,
    "read_blocks": [0, 1, 2, 3],
    "head_width": 8,
    "head_channels": [8, 8, 8, 8],
    "max_depth_metres": 20.0,
}
TINY_RUN = ["data.frames=2", "data.resolution=[32,32]", "backbone.widths=[32,64]", "backbone.head_width=16"]


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_depth_has_the_size_of_the_image_and_stays_below_the_bound():
    depth = DepthAnythingV2(**SMALL).metric_depth(images(45, 64))
    assert depth.shape == (2, 45, 64)
    assert depth.min() > 0
    assert depth.max() < 20
    assert not depth.requires_grad


def test_the_bound_is_a_factor():
    near = DepthAnythingV2(**SMALL | {"max_depth_metres": 1.0}).metric_depth(images(28, 28))
    far = DepthAnythingV2(**SMALL | {"max_depth_metres": 80.0}).metric_depth(images(28, 28))
    torch.testing.assert_close(far, 80 * near)


def test_every_read_block_and_the_whole_image_matter():
    network = DepthAnythingV2(**SMALL)
    seen = images(56, 42)
    depth = network.metric_depth(seen)
    changed = seen.clone()
    changed[:, :, -14:, -14:] *= -1
    assert not torch.allclose(network.metric_depth(changed)[:, :14, :14], depth[:, :14, :14], rtol=0, atol=1e-6)
    parameters = dict(network.named_parameters())
    for block in range(len(network.tower.blocks)):
        bias = parameters[f"tower.blocks.{block}.attn.proj.bias"]
        with torch.no_grad():
            bias.add_(1)
        assert not torch.allclose(network.metric_depth(seen), depth, rtol=0, atol=1e-6)
        with torch.no_grad():
            bias.sub_(1)


def test_the_network_is_the_same_in_every_process_and_leaves_the_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = DepthAnythingV2(**SMALL)
    assert torch.equal(torch.rand(1), expected)
    torch.testing.assert_close(first.state_dict(), DepthAnythingV2(**SMALL).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("size", "expected"), [(256, 252), (320, 322), (512, 518), (7, 0), (21, 28)])
def test_sizes_are_rounded_to_whole_patches(size, expected):
    assert nearest_multiple(size) == expected


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match="images of 6x64 pixels; each side needs more than 7"):
        DepthAnythingV2(**SMALL).metric_depth(images(6, 64))


@pytest.mark.parametrize("read_blocks", [[0, 1, 2], [0, 2, 1, 3], [0, 1, 2, 4]])
def test_blocks_that_cannot_be_read_are_refused(read_blocks):
    with pytest.raises(ValueError, match="depth.read_blocks"):
        DepthAnythingV2(**SMALL | {"read_blocks": read_blocks})


def test_the_vit_l_preset_has_the_released_parameters():
    with torch.device("meta"):
        network = instantiate_part(compose_config("train", ["depth=depth_anything_v2_hypersim_vitl"]).depth, "depth")
    ours = {f"depth.{name}" for name, _ in network.named_parameters()}
    released = set(released_names(ours).values())
    assert len(released) == len(ours)
    assert all(name.startswith("depth_predictor.") for name in released)
    # 335 315 649 as released, less the mask token and a unit of the head that nothing calls.
    assert sum(parameter.numel() for parameter in network.parameters()) == 335_315_649 - 1024 - 2 * (
        256 * 256 * 9 + 256
    )


def test_names_of_depth_anythings_own_file_are_known_too():
    released = ["pretrained.blocks.0.attn.qkv.weight", "depth_head.scratch.layer1_rn.weight", "pretrained.mask_token"]
    translation = our_names(released)
    assert translation.ours == {
        released[0]: "depth.tower.blocks.0.attn.qkv.weight",
        released[1]: "depth.head.narrowings.0.weight",
    }
    assert list(translation.unused) == [released[2]]
    assert translation.unknown == ()


def test_a_model_with_a_depth_network_never_trains_it():
    model = build_model(compose_config("train", [*TINY_RUN, "depth=tiny"]))
    assert model.depth is not None
    assert model.depth in list(model.frozen_towers())
    model.train()
    assert not model.depth.training
    for policy in ("camera", "all", [".*"]):
        assert not any(name.startswith("depth.") for name in model.select_trainable(policy))
    assert not any(parameter.requires_grad for parameter in model.depth.parameters())


def test_depth_anythings_own_file_completes_a_checkpoint(tmp_path: Path):
    released = released_weights("realcam_i2v", "depth=tiny")
    depth = {name.removeprefix("depth_predictor."): v for name, v in released.items() if name.startswith("depth_")}
    rest = {name: value for name, value in released.items() if not name.startswith("depth_")}
    files = [save(tmp_path / "model.ckpt", rest, "state_dict"), save(tmp_path / "depth_anything.pth", depth)]
    model = all_zero(tiny_model("realcam_i2v", "depth=tiny"))
    with pytest.raises(ValueError, match=r"depth\.tower\..*give the Depth Anything file last"):
        load_released(files[:1], model)
    load_released(files, model)
    parameters = {name: value for name, value in model.named_parameters() if name.startswith("depth.")}
    assert len(parameters) == len(depth)
    for ours, name in released_names(parameters).items():
        assert torch.equal(parameters[ours], released[name].float())
    # A model without a depth network is complete without the second file.
    load_released(files[:1], tiny_model("realcam_i2v"))


def test_models_have_no_depth_network_unless_asked():
    model = build_model(compose_config("train", TINY_RUN))
    assert model.depth is None
    assert not any(name.startswith("depth") for name in model.state_dict())
