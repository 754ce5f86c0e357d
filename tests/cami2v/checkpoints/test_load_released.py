"""Released weights reach the model bit for bit, or are refused with the key and the likeliest mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cami2v.checkpoints.load_released import load_released, match_released
from cami2v.checkpoints.named_weights import open_weights
from cami2v.checkpoints.report import RefusedWeightsError
from tests.cami2v.checkpoints.released_files import (
    all_zero,
    base_and_delta,
    is_camera,
    parameters_of,
    random_tensor,
    released_weights,
    save,
    tiny_model,
)

METHODS = ["none", "motionctrl", "cameractrl", "cami2v", "realcam_i2v"]
AS_512 = ("backbone.learnable_image_scale=false", "diffusion=v_zero_snr")
SCALE = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.alpha"
RENAMED = "model.diffusion_model.out.2.bias"


def refusal(files: list[Path], *build: str, camera_may_be_missing: bool = False) -> RefusedWeightsError:
    """Return the error with which files are refused, after making sure that nothing was written."""
    model = all_zero(tiny_model(*build))
    with pytest.raises(RefusedWeightsError) as caught:
        load_released(files, model, camera_may_be_missing=camera_may_be_missing)
    assert not any(parameter.any() for parameter in model.parameters())
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("camera", METHODS)
def test_every_weight_arrives_and_is_accounted_for(tmp_path: Path, camera: str) -> None:
    weights = released_weights(camera)
    path = save(tmp_path / "model.ckpt", weights, "state_dict", "module")
    model = all_zero(tiny_model(camera))
    report = load_released([path], model)
    opened = open_weights(path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), opened.read(name).float()), name
    stored = {match.stored for match in report.matched.values()} | report.unused.keys()
    assert stored == weights.keys()
    assert (report.missing, report.unexpected, report.mismatched) == ({}, {}, {})
    assert [file.role for file in report.files] == ["full"]
    count = len(report.matched)
    summary = report.summary()
    assert f"{count} of {count} parameters loaded" in summary
    assert f"{count} converted from float16 to float32" in summary
    assert f"sha256 {report.files[0].sha256}" in summary
    assert len(report.text().splitlines()) > len(weights)


@pytest.mark.parametrize("camera", ["motionctrl", "cameractrl", "cami2v"])
def test_a_delta_wins_over_its_base(tmp_path: Path, camera: str) -> None:
    weights = released_weights(camera)
    base, delta = base_and_delta(camera)
    changed = {
        n: random_tensor(f"changed {n}", v.shape) for n, v in base.items() if ".2.transformer_blocks.0.attn2." in n
    }
    changed |= {
        n: random_tensor(f"changed {n}", v.shape) for n, v in base.items() if "init_attn" in n and ".attn2." in n
    }
    files = [save(tmp_path / "base.ckpt", base, "state_dict"), save(tmp_path / "delta.pt", delta | changed)]
    model = all_zero(tiny_model(camera))
    report = load_released(files, model)
    assert [file.role for file in report.files] == ["base", "delta"]
    assert len(report.replaced) == len(changed) > 0
    whole = save(tmp_path / "whole.ckpt", weights | changed)
    other = all_zero(tiny_model(camera))
    load_released([whole], other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert f"{len(changed)} of the base replaced by the delta" in report.summary()


def test_the_older_name_of_the_frame_rate_embedding(tmp_path: Path) -> None:
    older = {n.replace("fps_embedding", "framestride_embed"): v for n, v in released_weights().items()}
    report = load_released([save(tmp_path / "model.ckpt", older)], tiny_model())
    assert report.matched["backbone.frame_rate_embedding.0.weight"].stored.endswith("framestride_embed.0.weight")
    both = older | released_weights()
    with pytest.raises(ValueError, match="framestride_embed.* are the same parameter"):
        load_released([save(tmp_path / "both.ckpt", both)], tiny_model())


@pytest.mark.parametrize("camera", ["motionctrl", "cameractrl", "cami2v", "realcam_i2v"])
def test_training_starts_from_a_base_with_only_the_camera_new(tmp_path: Path, camera: str) -> None:
    base, _ = base_and_delta(camera)
    path = save(tmp_path / "base.ckpt", base, "state_dict")
    model = tiny_model(camera)
    before = {name: value.clone() for name, value in parameters_of(model, camera=True).items()}
    report = load_released([path], model, camera_may_be_missing=True)
    assert report.missing.keys() == before.keys() != set()
    assert "missing (new camera modules)" in report.summary()
    assert all(torch.equal(value, before[name]) for name, value in parameters_of(model, camera=True).items())
    error = refusal([path], camera)
    assert "missing " in str(error)
    assert "it holds no camera weights, so it is a base" in str(error)


def without(weights: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if name not in names}


def test_a_renamed_key_is_named_on_both_sides(tmp_path: Path) -> None:
    weights = released_weights()
    renamed = without(weights, RENAMED) | {RENAMED.replace("bias", "biass"): weights[RENAMED]}
    error = refusal([save(tmp_path / "model.ckpt", renamed)])
    assert f"unexpected {RENAMED}s" in str(error)
    assert f"missing {RENAMED} (here backbone.output_convolution.bias)" in str(error)
    assert f"{RENAMED}s may be {RENAMED}, renamed" in str(error)
    assert error.report.unexpected.keys() == {f"{RENAMED}s"}
    base = {name: value for name, value in renamed.items() if not is_camera(name)}
    starting = refusal([save(tmp_path / "base.ckpt", base)], camera_may_be_missing=True)
    assert f"unexpected {RENAMED}s" in str(starting)


@pytest.mark.parametrize("shape", [(5,), (1, 4), ()])
def test_a_wrong_shape_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    wrong = released_weights() | {RENAMED: torch.zeros(shape)}
    error = refusal([save(tmp_path / "model.ckpt", wrong)])
    assert f"wrong shape: {RENAMED} has shape {shape}, this model's has shape (4,)" in str(error)


def test_a_kernel_that_is_not_pointwise_and_a_number_that_is_no_weight(tmp_path: Path) -> None:
    name = "first_stage_model.encoder.mid.attn_1.q.weight"
    wrong = released_weights() | {name: torch.zeros(64, 64, 3, 3), RENAMED: torch.zeros(4, dtype=torch.int8)}
    error = refusal([save(tmp_path / "model.ckpt", wrong)])
    assert f"{name} has shape (64, 64, 3, 3), this model's has shape (64, 64) (and 1 more)" in str(error)
    assert {m.found for m in error.report.mismatched.values()} == {"shape (64, 64, 3, 3)", "shape (4,) of int8"}


def test_camera_weights_that_are_absent_incomplete_or_of_another_method(tmp_path: Path) -> None:
    base, delta = base_and_delta("cami2v")
    lost = next(name for name in delta if "epipolar" in name)
    error = refusal([save(tmp_path / "part.ckpt", without(base | delta, lost))])
    assert f"missing {lost}" in str(error)
    assert "camera weights are incomplete" in str(error)
    # Incomplete is not absent: training does not start from part of a camera branch either.
    error = refusal([tmp_path / "part.ckpt"], camera_may_be_missing=True)
    assert f"missing {lost}" in str(error)

    other = save(tmp_path / "other.ckpt", released_weights("cameractrl"))
    assert "it holds CameraCtrl's camera modules, this model has CamI2V or RealCam-I2V's" in str(refusal([other]))
    assert "camera modules, this model has none" in str(refusal([other], "none"))
    motion = save(tmp_path / "motion.ckpt", released_weights("motionctrl"))
    assert "it holds MotionCtrl's camera modules" in str(refusal([motion], "cameractrl"))
    assert "it holds MotionCtrl's" in str(refusal([motion], "cameractrl", camera_may_be_missing=True))


def test_a_delta_alone_in_the_wrong_place_or_with_a_foreign_key(tmp_path: Path) -> None:
    base, delta = base_and_delta()
    files = [save(tmp_path / "base.ckpt", base), save(tmp_path / "delta.pt", delta)]
    assert "give its base before it (<base>,<delta>)" in str(refusal(files[1:]))
    assert f"{files[1]}: is no base, it lacks " in str(refusal(files[::-1]))
    stray = save(tmp_path / "stray.pt", delta | {"pose_encoder.extra.weight": torch.ones(1)})
    assert "unexpected pose_encoder.extra.weight" in str(refusal([files[0], stray]))
    nothing = save(tmp_path / "nothing.pt", {"betas": torch.ones(1000)})
    whole = save(tmp_path / "whole.ckpt", base | delta)
    assert f"{nothing}: none of its 1 tensors (first: betas)" in str(refusal([whole, nothing]))


def test_a_delta_without_the_backbone_weights_its_method_trains(tmp_path: Path) -> None:
    base, delta = base_and_delta("motionctrl")
    files = [save(tmp_path / "base.ckpt", base), save(tmp_path / "delta.pt", delta)]
    error = str(refusal(files, "motionctrl"))
    assert re.search(r"delta.pt: lacks .*attn2.*which its method trains beside the camera modules", error)


def test_the_wrong_base_under_a_delta(tmp_path: Path) -> None:
    base_256, delta = base_and_delta()
    base_512 = {n: v for n, v in released_weights("cami2v", *AS_512, rescale=True).items() if not is_camera(n)}
    files = {
        name: save(tmp_path / f"{name}.pt", weights)
        for name, weights in {
            "256": base_256,
            "512": base_512,
            "delta": delta,
            "256 with table": base_256 | {"scale_arr": torch.ones(1400).half()},
            "512 without table": without(base_512, "scale_arr"),
            "512 without any": without(base_512, "scale_arr", "betas", "alphas_cumprod"),
        }.items()
    }
    load_released([files["512"], files["delta"]], tiny_model("cami2v", *AS_512), hashes=False)
    load_released([files["512 without any"], files["delta"]], tiny_model("cami2v", *AS_512), hashes=False)

    error = refusal([files["256"], files["delta"]], "cami2v", *AS_512)
    assert f"unexpected {SCALE} (and 6 more)" in str(error)
    assert "the base is DynamiCrafter's 256 model (with the learned scales" in str(error)
    error = refusal([files["512"], files["delta"]])
    assert f"missing {SCALE}" in str(error)
    assert "the base is DynamiCrafter's 512 model" in str(error)
    error = refusal([files["256 with table"], files["delta"]])
    assert "scale table present" in str(error)
    error = refusal([files["512 without table"], files["delta"]], "cami2v", *AS_512)
    assert "256 weights in a 512 model" in str(error)


def test_names_and_shapes_are_judged_without_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", released_weights())
    skeleton = tiny_model().to("meta")
    assert len(match_released([path], skeleton).matched) == len(dict(skeleton.named_parameters()))


def test_only_part_of_a_checkpoint(tmp_path: Path) -> None:
    part = {n: v for n, v in released_weights().items() if not n.startswith("first_stage_model.")}
    assert "it holds nothing of first_stage" in str(refusal([save(tmp_path / "part.ckpt", part)]))


def test_a_depth_network_is_a_third_file_under_its_own_names(tmp_path: Path) -> None:
    build = ("realcam_i2v", "depth=tiny")
    weights = released_weights(*build)
    prefix = "depth_predictor."
    depth = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    rest = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    pair = [
        save(tmp_path / "base.ckpt", {n: v for n, v in rest.items() if not is_camera(n)}, "state_dict"),
        save(tmp_path / "delta.pt", {n: v for n, v in rest.items() if is_camera(n)}),
    ]
    own = save(tmp_path / "depth_anything.pth", depth)
    model = all_zero(tiny_model(*build))
    report = load_released([*pair, own], model)
    assert [file.role for file in report.files] == ["base", "delta", "depth"]
    assert all(
        torch.equal(p.detach(), open_weights(own).read(n).float())
        for n, p in model.named_parameters()
        if n[:6] == "depth."
    )
    assert len(depth) > 10

    assert "give the Depth Anything file last" in str(refusal(pair, *build))
    assert f"{own}: none of its" in str(refusal([*pair, own], "realcam_i2v"))
    # A whole inference file carries the depth network; a model without one leaves it out and says so.
    whole = load_released([save(tmp_path / "whole.ckpt", weights)], tiny_model("realcam_i2v"))
    reasons = {whole.unused[name] for name in weights if name.startswith(prefix)}
    assert reasons == {"depth network, and this model has none"}
