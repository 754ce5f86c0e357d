"""Makes a folder of cases that is not the published one: fewer rows, frames and clips, other names, sizes and keys."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.loss import diffusion_loss, vlb_weights
from cami2v.diffusion.prediction import Prediction, diffuse, predict_clean, predict_noise
from cami2v.diffusion.steps import published_steps
from cami2v.geometry.epipolar import EpipolarOptions, mask_from_fundamental
from tools.parity.cases import Case, generator, normal, unpack_mask
from tools.parity.ddim import ListedNoise, Recorder
from tools.parity.published_schedule import published_schedule
from tools.parity.toy_denoiser import ToyDenoiser

SPLIT = "acceptance"
TOY = ToyDenoiser(noisy=0.4, sine=0.2, concatenated=0.1, context=0.3, camera_shift=0.25)
TOY_TEXT = (
    "toy denoiser 0.4*z+0.2*sin(t)+0.1*c_concat+0.3*mean(context over dims 1,2)+v (v=camera_condition value 0.25)"
)


def write(folder: Path, name: str, parameters: dict[str, Any], arrays: dict[str, Tensor] | None = None) -> None:
    """Write one case."""
    parameters = parameters | {"case": name.replace("__", "/")}
    (folder / f"{name}.json").write_text(json.dumps(parameters))
    if arrays:
        stored: dict[str, Any] = {key: value.numpy() for key, value in arrays.items()}
        np.savez(folder / f"{name}.npz", **stored)


def transform_published(golden: Path, folder: Path) -> None:
    """Write cases cut out of the published ones."""
    _fewer_frames_and_another_order(Case(name="relpose__real_b2", folder=golden), folder)
    _part_of_a_map(Case(name="plucker__32x32", folder=golden), folder)
    _fewer_frames_of_a_mask(golden, folder)
    sampling = Case(name="data__frame_sampling", folder=golden).parameters
    write(folder, "data__frame_sampling", sampling | {"rows": sampling["rows"][::-5]})
    _fewer_clips(Case(name="evalmetric__real", folder=golden), folder)
    _fewer_paths(golden, folder)


def _fewer_frames_and_another_order(case: Case, folder: Path) -> None:
    frames = 9
    arrays = {}
    for name in case.arrays:
        both_axes = name in ("pairs", "F")
        arrays[name] = (case[name][:, :frames, :frames] if both_axes else case[name][:, :frames]).flip(0)
    changes = {key: case.parameters[key][::-1] for key in ("cond_frame_index", "clips")}
    write(folder, "relpose__two_clips", case.parameters | changes, arrays)


def _part_of_a_map(case: Case, folder: Path) -> None:
    arrays = {name: case[name][:, :2] for name in ("K", "c2w_rel")}
    write(folder, "plucker__20x28", case.parameters, arrays | {"plucker": case["plucker"][:, :, :2, :20, :28]})


def _fewer_frames_of_a_mask(golden: Path, folder: Path) -> None:
    """Cut the first frames out of a perturbed case, and give the second folder its poses under another clip's name."""
    frames, level = 5, 64
    case = next(
        Case(name=path.stem, folder=golden)
        for path in sorted(golden.glob("epimask__*_pert.json"))
        if "w2c" in Case(name=path.stem.removesuffix("_pert"), folder=golden).arrays
    )
    cells = (256 // level) ** 2
    fundamental = case["F"][:, :frames, :frames]
    tokens = case["F"].shape[1] * cells
    full = unpack_mask(case[f"full_{level}"], (1, tokens, tokens))[:, : frames * cells, : frames * cells]
    index = torch.tensor([0, 17, frames * cells - 1])
    arrays = {
        "F": fundamental,
        f"counts_{level}": case[f"counts_{level}"][:, :frames, :frames],
        f"rowidx_{level}": index.int(),
        f"rows_{level}": torch.from_numpy(np.packbits(full[0, index].numpy(), axis=-1)),
        f"full_{level}": torch.from_numpy(np.packbits(full.numpy())),
    }
    text = {"what": f"epipolar masks 256x256, T={frames}", "clip": "renamed", "perturbation": True}
    write(folder, f"epimask__256_T{frames}_renamed_pert", text, arrays)


def _fewer_clips(case: Case, folder: Path) -> None:
    first, second = (pair["clip"] for pair in case.parameters["pairs"][:2])
    assert case.parameters["pairs"][0]["other"] == second
    arrays = {name.replace(first, "kitchen"): case[name] for name in case.arrays if name.startswith(first)}
    arrays |= {"garden_w2c": case[f"{second}_w2c"]}
    arrays |= {name: case[name] for name in ("static_vs_first", "first_vs_static")}
    write(folder, "evalmetric__synthetic", {"pairs": [{"clip": "kitchen", "other": "garden"}]}, arrays)


def _fewer_paths(golden: Path, folder: Path) -> None:
    paths, rows = (Case(name=f"traj__{name}", folder=golden) for name in ("lerp_bezier", "get_image"))
    file = paths.parameters["files"][1]
    old, new = file.replace(" ", "_"), "slide_west"
    kept = {name.replace(old, new): paths[name] for name in paths.arrays if name.startswith((old, "bezier_curve"))}
    write(folder, "traj__lerp_bezier", paths.parameters | {"files": ["slide west"]}, kept)
    chosen = [row | {"file": "slide west"} for row in rows.parameters["rows"] if row["file"] == file]
    stored = {f"{kind}_{row['i']}" for row in chosen for kind in ("w2c", "rel")} & rows.arrays.keys()
    write(folder, "traj__get_image", rows.parameters | {"rows": chosen}, {name: rows[name] for name in sorted(stored)})


def compute_our_own(folder: Path) -> None:
    """Write cases whose random inputs have other keys and shapes, with what our code makes of them."""
    _ddim(folder)
    _loss(folder)
    _convert(folder)
    _mask_options(folder)


def _ddim(folder: Path) -> None:
    name, shape, steps = "ddim__v_short", [2, 3, 5, 4, 4], 5
    prefix = f"ddim/v_short/{SPLIT}"
    visited = published_steps("published_uniform_trailing", steps, 1000).tolist()
    parameters = {
        "what": TOY_TEXT, "key_prefix": prefix, "shape": shape, "parameterization": "v", "finite": True,
        "rescale_betas_zero_snr": True, "steps": steps, "n_steps_done": steps, "eta": 1.0, "cfg_scale": 3.0,
        "timestep_spacing": "uniform_trailing", "guidance_rescale": 0.5, "camera": True, "camera_cfg": 1.0,
        "camera_cfg_scheduler": "constant", "paste_cond_frame": False, "cond_frame_index": [0, 1], "num_overlap": 0,
        "inpaint_mask": False, "noise_shaping_minimum_timesteps": None, "dynamic_rescale": False, "base_scale": None,
        "noise_draws": steps, "model_calls_first_step": [[999, "camera", "c"], [999, "camera", "uc"]],
        "model_calls_total": 2 * steps, "tol": "1e-4 relative to max|final|", "inputs": "ctx,uctx (B,6,9)",
    }  # fmt: skip
    write(folder, name, parameters, {"timesteps": torch.tensor(visited)})
    case = Case(name=name, folder=folder)
    concatenated = normal(f"{prefix}/cat", tuple(shape))
    context = {key: normal(f"{prefix}/{key}", (shape[0], 6, 9)) for key in ("ctx", "uctx")}
    recorder = Recorder()
    final = DDIMSampler(
        steps=steps,
        spacing="uniform_trailing",
        eta=1.0,
        temperature=1.0,
        guidance=Guidance(scale=3.0, rescale=0.5, camera_scale=1.0, camera_schedule="constant"),
    ).sample(
        lambda z, t, branch: TOY(z, t, concatenated, context["uctx" if "un" in branch else "ctx"], camera=True),
        schedule=published_schedule(zero_terminal_snr=True),
        prediction=Prediction.V,
        shape=tuple(shape[1:]),
        draws=ListedNoise(case),
        edits=[recorder],
    )
    arrays = {"final": final, "pred_x0_first": recorder.clean[0], "pred_x0_mid": recorder.clean[steps // 2]}
    parameters["final_std"] = final.std().item()
    write(folder, name, parameters, arrays | {"timesteps": torch.tensor(visited)})


def _loss(folder: Path) -> None:
    latents, context = (2, 3, 5, 4, 4), (2, 6, 9)
    t = torch.tensor([10, 900])
    inputs = {key: normal(f"loss/{SPLIT}/{key}", latents) for key in ("x0", "cat", "noise")}
    noisy = diffuse(inputs["x0"], inputs["noise"], t, schedule=published_schedule(), prediction=Prediction.EPS)
    output = TOY(noisy.noisy, t, inputs["cat"], normal(f"loss/{SPLIT}/ctx", context))
    per_sample = diffusion_loss(output, noisy.target)
    bound = (vlb_weights(published_schedule(), Prediction.EPS)[t] * per_sample).mean().item()
    row = {"parameterization": "eps", "loss_type": "l2", "noise_strength": 0, "train/loss_vlb": bound}
    row |= {"loss": per_sample.mean().item(), "train/loss_simple": per_sample.mean().item()}
    what = f"{TOY_TEXT}, ctx=c_crossattn (2,6,9); shapes x0/cat/noise (2,3,5,4,4), offset (2,3,5,1,1)"
    write(folder, "loss__p_losses", {"what": what, "t": t.tolist(), "rows": [row]})


def _convert(folder: Path) -> None:
    t, shape, schedule = torch.tensor([3, 400]), (2, 3, 4, 5, 5), published_schedule(zero_terminal_snr=True)
    clean, noise = (normal(f"qsample/{SPLIT}/{part}", shape) for part in ("x0", "noise"))
    noisy, velocity = schedule.add_noise(clean, noise, t), schedule.velocity(clean, noise, t)
    arrays = {
        "x_t": noisy,
        "v": velocity,
        "x0_from_v": predict_clean(noisy, velocity, t, schedule=schedule, prediction=Prediction.V),
        "eps_from_v": predict_noise(noisy, velocity, t, schedule=schedule, prediction=Prediction.V),
    }
    first_frames = {key: value[:, :, 0] for key, value in arrays.items()}
    what = "x0,noise: Philox f32 (2,3,4,5,5) keys"
    write(folder, "sched__convert_v_zsnr1", {"what": what, "t": t.tolist(), "split_name": SPLIT}, first_frames)


def _mask_options(folder: Path) -> None:
    """Three frames of a random walk at a size of its own; F perturbed and not, one pair of options."""
    frames, height, width = 3, 128, 192
    world_to_camera = torch.eye(4).repeat(1, frames, 1, 1)
    steps = torch.from_numpy(generator("walk").normal(size=(frames, 3))).float()
    world_to_camera[0, :, :3, 3] = steps.cumsum(0)
    matrix = torch.tensor([[100.0, 0, width / 2], [0, 100.0, height / 2], [0, 0, 1]]).expand(1, frames, 3, 3)
    arrays = {"walk_w2c": world_to_camera, "K": matrix.contiguous()}
    fundamental = torch.zeros(1, frames, frames, 3, 3)
    for query in range(frames):
        for key in range(frames):
            x, y, z = (world_to_camera[0, key] - world_to_camera[0, query])[:3, 3].tolist()
            cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            inverse = torch.linalg.inv(matrix[0, 0])
            fundamental[0, query, key] = inverse.T @ cross @ inverse
    arrays["walk_F"] = fundamental
    flags = "epipolar_hybrid_attention+current_frame_as_register_token"
    chosen = EpipolarOptions(hybrid=True, current_frame_as_register_token=True)
    mask = mask_from_fundamental(fundamental, height, width, 32, chosen)
    arrays[f"walk__{flags}__full32"] = torch.from_numpy(np.packbits(mask.numpy()))
    cells = math.prod((height // 32, width // 32))
    arrays[f"walk__{flags}__counts32"] = mask.view(1, frames, cells, frames, cells).sum(dim=(2, 4))
    what = f"mask options, T={frames}, {height}x{width}"
    write(folder, "epimask__options_T3", {"what": what, "cond_frame_index": 1}, arrays)
