"""Camera geometry against the published implementation's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.geometry.cameras import as_homogeneous, intrinsic_matrix, invert_pose, relative_poses, scaled_relative_poses
from cami2v.geometry.epipolar import (
    EpipolarOptions,
    epipolar_mask,
    fundamental_matrices,
    mask_from_fundamental,
    pairwise_poses,
)
from cami2v.geometry.rays import pluecker_map
from cami2v.geometry.timing import (
    bezier_curve,
    bezier_positions,
    even_positions,
    excerpt_positions,
    interpolate_matrices,
    there_and_back,
)
from tests.golden.cases import Case, load_case, normal, unpack_mask

CLIPS_256 = ["256_T16_0bf152ef84195293", "256_T16_0c11dbe781b1c11c"]
FLAGS = {
    "epipolar_hybrid_attention": "hybrid",
    "epipolar_hybrid_attention_v2": "hybrid_v2",
    "only_self_pixel_on_current_frame": "only_self_pixel_on_current_frame",
    "current_frame_as_register_token": "current_frame_as_register_token",
}


def cameras_of(world_to_camera: Tensor, matrix: Tensor) -> Cameras:
    poses = world_to_camera.double()[:, :, :3]
    return Cameras(
        world_to_camera=poses,
        intrinsics_pixels=as_vector(matrix).double(),
        translation_scale=torch.ones(poses.shape[:2], dtype=torch.float64),
        height=256,
        width=256,
    )


def as_vector(matrix: Tensor) -> Tensor:
    return torch.stack([matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2]], dim=-1)


def off_diagonal(frames: int) -> Tensor:
    return ~torch.eye(frames, dtype=torch.bool)


def relative(case: Case, name: str = "w2c") -> Tensor:
    condition = torch.tensor(case.parameters["cond_frame_index"]).reshape(-1)
    return scaled_relative_poses(cameras_of(case[name], case["K"]), condition, 1.0)


def pair_counts(mask: Tensor, frames: int) -> Tensor:
    batch, tokens = mask.shape[:2]
    cells = tokens // frames
    return mask.reshape(batch, frames, cells, frames, cells).sum(dim=(2, 4))


def test_relative_and_pairwise_poses() -> None:
    case = load_case("relpose__real_b2")
    condition = torch.tensor(case.parameters["cond_frame_index"])
    cameras = cameras_of(case["w2c"], case["K"])
    ours = relative_poses(cameras.world_to_camera, condition).float()
    torch.testing.assert_close(ours, case["rel_left"], rtol=0, atol=1e-4)
    torch.testing.assert_close(ours, case["rel_left_normT0"], rtol=0, atol=1e-4)
    scale = case.parameters["trace_scale_factor_for_rel_left_scaled"]
    scaled = scaled_relative_poses(cameras, condition, scale)
    torch.testing.assert_close(scaled, case["rel_left_scaled"], rtol=0, atol=1e-4)
    torch.testing.assert_close(pairwise_poses(ours).float(), case["pairs"], rtol=0, atol=1e-4)


def test_metric_scale_equals_trace_scale() -> None:
    case = load_case("relpose__real_b2")
    condition = torch.tensor(case.parameters["cond_frame_index"])
    plain = cameras_of(case["w2c"], case["K"])
    scale = torch.ones_like(plain.translation_scale)
    scale[torch.arange(2), condition] = case.parameters["trace_scale_factor_for_rel_left_scaled"]
    metric = Cameras(
        world_to_camera=plain.world_to_camera,
        intrinsics_pixels=plain.intrinsics_pixels,
        translation_scale=scale,
        height=256,
        width=256,
    )
    ours = scaled_relative_poses(metric, condition, 1.0)
    torch.testing.assert_close(ours, case["rel_left_scaled"], rtol=0, atol=1e-4)


def test_motionctrl_relative_world_to_camera() -> None:
    case = load_case("relpose__motionctrl_rt")
    identity = torch.eye(3).expand(*case["w2c"].shape[:2], 3, 3)
    condition = torch.tensor(case.parameters["cond_frame_index"])
    scale = case.parameters["trace_scale_factor"]
    ours = scaled_relative_poses(cameras_of(case["w2c"], identity), condition, scale)
    torch.testing.assert_close(ours, case["rel_left_scaled"], rtol=0, atol=1e-4)
    rows = invert_pose(ours)[:, :, :3].flatten(2)
    torch.testing.assert_close(rows, case["RT12"], rtol=0, atol=1e-4)


def assert_same_up_to_scale(ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.float(), theirs.float()
    ours = ours / ours.norm(dim=(-2, -1), keepdim=True)
    theirs = theirs / theirs.norm(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_fundamental_matrices() -> None:
    case = load_case("relpose__real_b2")
    poses = relative(case)
    ours = fundamental_matrices(poses, as_vector(case["K"]), perturbation=None)
    other = off_diagonal(poses.shape[1])
    assert_same_up_to_scale(ours[:, other], case["F"][:, other])
    assert (ours[:, ~other] == 0).all()


def test_fundamental_matrices_while_zooming() -> None:
    published, source = load_case("fundamental__varying_K"), load_case("relpose__real_b2")
    intrinsics = as_vector(source["K"])
    intrinsics[..., :2] *= torch.linspace(1, 1.5, 16)[:, None]
    poses, intrinsics = relative(source)[:, ::3], intrinsics[:, ::3]
    other = off_diagonal(6)
    ours = fundamental_matrices(poses, intrinsics, perturbation=None, key_intrinsics_on_both_sides=True)
    assert_same_up_to_scale(ours[:, other], published["F"][:, other])
    corrected = fundamental_matrices(poses, intrinsics, perturbation=None)
    assert (corrected[:, other] - ours[:, other]).abs().max() > 1e-3 * ours.abs().max()


@pytest.mark.parametrize("clip", CLIPS_256)
@pytest.mark.parametrize("perturbed", [False, True])
def test_mask_from_published_fundamental(clip: str, perturbed: bool) -> None:
    case = load_case(f"epimask__{clip}" + ("_pert" if perturbed else ""))
    frames = case["F"].shape[1]
    counted = torch.ones(frames, frames, dtype=torch.bool) if perturbed else off_diagonal(frames)
    for downsample in (64, 32, 16):
        mask = mask_from_fundamental(case["F"], 256, 256, downsample, EpipolarOptions())
        counts = pair_counts(mask, frames)
        difference = (counts - case[f"counts_{downsample}"])[:, counted].abs().sum()
        assert difference <= 1e-5 * mask.numel(), downsample
        rows = mask[0, case[f"rowidx_{downsample}"].long()]
        theirs = unpack_mask(case[f"rows_{downsample}"], tuple(rows.shape))
        keep = counted[case[f"rowidx_{downsample}"].long() // (mask.shape[1] // frames)]
        keep = keep.repeat_interleave(mask.shape[2] // frames, dim=1)
        assert (rows != theirs)[keep].sum() <= 1, downsample


@pytest.mark.parametrize("clip", [0, 1])
def test_mask_from_poses(clip: int) -> None:
    source, case = load_case("relpose__real_b2"), load_case(f"epimask__{CLIPS_256[clip]}_pert")
    noise = normal(f"epimask/{CLIPS_256[clip]}/perturbation", (1, 16, 16, 3, 1)).squeeze(-1)
    poses, intrinsics = relative(source)[clip : clip + 1], as_vector(source["K"])[clip : clip + 1]
    for downsample in (64, 32):
        mask = epipolar_mask(poses, intrinsics, 256, 256, downsample, noise, EpipolarOptions())
        difference = (pair_counts(mask, 16) - case[f"counts_{downsample}"]).abs().sum()
        assert difference <= 1e-3 * mask.numel(), downsample
        if downsample == 64:
            assert (mask != unpack_mask(case["full_64"], tuple(mask.shape))).float().mean() <= 1e-3


@pytest.mark.slow
def test_finest_mask_level_from_published_fundamental() -> None:
    case = load_case(f"epimask__{CLIPS_256[0]}_pert")
    mask = mask_from_fundamental(case["F"], 256, 256, 8, EpipolarOptions())
    difference = (pair_counts(mask, 16) - case["counts_8"]).abs().sum()
    assert difference <= 1e-5 * mask.numel()


def test_mask_of_a_wide_image() -> None:
    case = load_case("epimask__320x512_T4_0c9b371cc6225682")
    for downsample in (64, 32, 16):
        mask = mask_from_fundamental(case["F"], 320, 512, downsample, EpipolarOptions())
        difference = (pair_counts(mask, 4) - case[f"counts_{downsample}"]).abs().sum()
        assert difference <= max(1, 1e-5 * mask.numel()), downsample
    full = mask_from_fundamental(case["F"], 320, 512, 64, EpipolarOptions())
    assert torch.equal(full, unpack_mask(case["full_64"], tuple(full.shape)))


@pytest.mark.parametrize("motion", ["real", "zeroT", "mixedT"])
def test_mask_options(motion: str) -> None:
    case = load_case("epimask__options_T4")
    tested = [name.split("__")[1] for name in case.arrays if name.startswith(f"{motion}__") and "full64" in name]
    assert len(tested) == 8
    for flags in tested:
        options = EpipolarOptions(**{FLAGS[flag]: True for flag in flags.split("+") if flag in FLAGS})
        fundamental = case[f"{motion}__pert_F" if flags == "pert" else f"{motion}_F"]
        # Without perturbation the published same-frame blocks are rounding noise unless an option overwrites them.
        same_frame_is_noise = flags != "pert" and "current_frame" not in flags
        compared = off_diagonal(4) if same_frame_is_noise else torch.ones(4, 4, dtype=torch.bool)
        mask = mask_from_fundamental(fundamental, 256, 256, 64, options)
        theirs = unpack_mask(case[f"{motion}__{flags}__full64"], tuple(mask.shape))
        entries = compared.repeat_interleave(16, dim=0).repeat_interleave(16, dim=1)
        assert torch.equal(mask[0][entries], theirs[0][entries]), flags
        if flags != "pert":
            counts = pair_counts(mask_from_fundamental(fundamental, 256, 256, 32, options), 4)
            assert torch.equal(counts[0][compared], case[f"{motion}__{flags}__counts32"].long()[0][compared]), flags


@pytest.mark.parametrize("motion", ["real", "zeroT", "mixedT"])
def test_perturbed_pairs_are_the_published_ones(motion: str) -> None:
    case = load_case("epimask__options_T4")
    noise = normal(f"epimask/options/{motion}/perturbation", (1, 4, 4, 3, 1)).squeeze(-1)
    ours = fundamental_matrices(relative(case, f"{motion}_w2c"), as_vector(case["K"]), perturbation=noise)
    assert_same_up_to_scale(ours, case[f"{motion}__pert_F"])


@pytest.mark.parametrize("size", [(32, 32), (40, 64), (48, 64), (64, 64)])
def test_pluecker_map(size: tuple[int, int]) -> None:
    case = load_case(f"plucker__{size[0]}x{size[1]}")
    ours = pluecker_map(case["c2w_rel"], as_vector(case["K"]).expand(*case["c2w_rel"].shape[:2], 4), *size)
    torch.testing.assert_close(ours, case["plucker"], rtol=0, atol=2e-5)


def trajectory(case: Case, file: str) -> Tensor:
    return invert_pose(as_homogeneous(case[f"{file.replace(' ', '_')}_w2c"].double().reshape(-1, 3, 4)))


@pytest.mark.parametrize("file", ["zoom in", "pan left", "orbit up", "look left", "stationary"])
def test_published_interpolation_and_easing(file: str) -> None:
    case = load_case("traj__lerp_bezier")
    poses, name = trajectory(case, file), file.replace(" ", "_")
    for samples in case.parameters["lerp_counts"]:
        ours = interpolate_matrices(poses, even_positions(len(poses), samples))
        torch.testing.assert_close(ours.float(), case[f"{name}_lerp{samples}"], rtol=0, atol=2e-6)
    for index, (start, end) in enumerate(case.parameters["bezier"]):
        start, end = (0.5, 0.5) if start is None else (start, end)
        ours = interpolate_matrices(poses, bezier_positions(len(poses), start, end))[:: max(1, len(poses) // 12)]
        torch.testing.assert_close(ours.float(), case[f"{name}_bez{index}"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("samples", [9, 50])
def test_bezier_curve(samples: int) -> None:
    case = load_case("traj__lerp_bezier")
    for index, (start, end) in enumerate(case.parameters["bezier"]):
        start, end = (0.5, 0.5) if start is None else (start, end)
        ours = bezier_curve(start, end, samples)
        torch.testing.assert_close(ours, case[f"bezier_curve_{index}_{samples}"], rtol=0, atol=1e-12)


def test_published_demo_trajectories() -> None:
    files, case = load_case("traj__lerp_bezier"), load_case("traj__get_image")
    compared = 0
    for row in case.parameters["rows"]:
        if row["error"] is not None:
            continue
        poses = trajectory(files, row["file"])
        if row["bezier"] is not None:
            poses = interpolate_matrices(poses, bezier_positions(len(poses), *row["bezier"]))
        if row["loop"]:
            poses = there_and_back(poses)
        poses = interpolate_matrices(poses, excerpt_positions(len(poses), 16, row["trace_extract_ratio"]))
        world_to_camera = invert_pose(poses)
        torch.testing.assert_close(world_to_camera.float(), case[f"w2c_{row['i']}"], rtol=0, atol=1e-5)
        identity = torch.eye(3).expand(1, 16, 3, 3)
        cameras = cameras_of(world_to_camera[None], identity)
        ours = scaled_relative_poses(cameras, torch.tensor([row["cond_frame_index"]]), row["trace_scale_factor"])
        torch.testing.assert_close(ours[0, :, :3], case[f"rel_{row['i']}"], rtol=0, atol=1e-4)
        compared += 1
    assert compared == 25


def test_intrinsic_matrix_matches_the_stored_one() -> None:
    case = load_case("relpose__real_b2")
    assert torch.equal(intrinsic_matrix(as_vector(case["K"])), case["K"])
