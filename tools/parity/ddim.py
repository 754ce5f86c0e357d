"""Cases of DDIM sampling with a toy denoiser."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.edits import Inpaint, NoiseShaping, OverlapFrames, PasteConditionFrame, Step, StepEdit
from cami2v.diffusion.guidance import Branch, Guidance
from cami2v.diffusion.prediction import Prediction
from tools.parity.cases import Case, normal, uniform
from tools.parity.checks import Checks
from tools.parity.published_schedule import published_schedule
from tools.parity.schedules import as_published
from tools.parity.toy_denoiser import read_toy_denoiser

BRANCHES = {
    Branch.CONDITIONAL: "c",
    Branch.UNCONDITIONAL: "uc",
    Branch.CONDITIONAL_WITHOUT_CAMERA: "c",
}


class ListedNoise:
    """Hands out the published run's numbers; the published sampler draws noise even where none is used."""

    def __init__(self, case: Case) -> None:
        prefix, shape = case.parameters["key_prefix"], tuple(case.parameters["shape"])
        self.numbers = {"ddim/initial": normal(f"{prefix}/x_T", shape)}
        for index, (purpose, frames) in enumerate(_draws(case, shape[2])):
            self.numbers[purpose] = normal(f"{prefix}/noise{index}", (*shape[:2], frames, *shape[3:]))

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Look up the numbers of one purpose."""
        numbers = self.numbers[purpose]
        assert tuple(numbers.shape[1:]) == shape
        return numbers


def _draws(case: Case, frames: int) -> Iterator[tuple[str, int]]:
    """Yield the purpose and the number of frames of every draw of the published run, in its order."""
    parameters = case.parameters
    minimum = parameters["noise_shaping_minimum_timesteps"]
    for index, timestep in enumerate(reversed(case["timesteps"].tolist())):
        if parameters["inpaint_mask"]:
            yield f"ddim/{index}/inpaint", frames
        if parameters["num_overlap"]:
            yield f"ddim/{index}/overlap", parameters["num_overlap"]
        if minimum is not None and timestep >= minimum:
            yield f"ddim/{index}/scene", frames
        yield f"ddim/{index}/noise", frames


class Recorder(StepEdit):
    """Keeps what the denoiser was asked and the predicted clean latents of every step."""

    def __init__(self) -> None:
        self.calls: list[list[object]] = []
        self.visited: list[int] = []
        self.clean: list[Tensor] = []

    def after_prediction(self, clean: Tensor, step: Step) -> Tensor:
        """Note a step."""
        self.visited.append(step.timestep)
        self.clean.append(clean)
        return clean


def ddim(case: Case) -> Checks:
    """Compare the final latents, predicted clean latents, the visited timesteps and the denoiser's calls."""
    parameters = case.parameters
    checks, tolerance = Checks(), case.stated_tolerance(1e-4)
    if not parameters["finite"]:
        return _refused(case)
    recorder = Recorder()
    final = _sample(case, recorder)
    checks.equal("timesteps", recorder.visited[::-1], case["timesteps"].tolist())
    checks.equal("steps", len(recorder.visited), parameters["n_steps_done"])
    checks.equal("noise draws", sum(1 for _ in _draws(case, 1)), parameters["noise_draws"])
    first = recorder.calls[: len(parameters["model_calls_first_step"])]
    checks.equal("calls of the first step", first, parameters["model_calls_first_step"])
    checks.equal("calls", len(recorder.calls), parameters["model_calls_total"])
    middle = recorder.clean[len(recorder.clean) // 2]
    ours = {"final": final, "pred_x0_first": recorder.clean[0], "pred_x0_mid": middle}
    for name, values in ours.items():
        scale = case[name].abs().max().item()
        checks.at_most(name, (values - case[name]).abs().max().item() / scale, tolerance)
    checks.at_most("final_std", abs(final.std().item() / parameters["final_std"] - 1), tolerance)
    return checks


def _refused(case: Case) -> Checks:
    """Where the published run ends in NaN, ours must say why it cannot be."""
    checks = Checks()
    checks.equal("published result is not finite", bool(case["final"].isfinite().all()), False)
    checks.equal("published steps", case["timesteps"].shape, (case.parameters["n_steps_done"],))
    for name in ("pred_x0_first", "pred_x0_mid"):
        checks.equal(f"published {name} is not finite", bool(case[name].isfinite().all()), False)
    try:
        _sample(case, Recorder())
    except ValueError as error:
        checks.equal("refused because of zero terminal SNR", "zero_terminal_snr" in str(error), True)
    else:
        checks.equal("refused", False, True)
    return checks


def _sample(case: Case, recorder: Recorder) -> Tensor:
    parameters = case.parameters
    prefix, shape = parameters["key_prefix"], tuple(parameters["shape"])
    tokens, width = (int(each) for each in case.stated(r"ctx,uctx \(B,(\d+),(\d+)\)", of="inputs"))
    concatenated = normal(f"{prefix}/cat", shape)
    context = {name: normal(f"{prefix}/{name}", (shape[0], tokens, width)) for name in ("ctx", "uctx")}
    toy = read_toy_denoiser(case)

    def predict(noisy: Tensor, t: Tensor, branch: Branch) -> Tensor:
        camera = parameters["camera"] and branch != Branch.CONDITIONAL_WITHOUT_CAMERA
        recorder.calls.append([int(t[0]), "camera" if camera else "nocam", BRANCHES[branch]])
        seen = context["uctx" if branch == Branch.UNCONDITIONAL else "ctx"]
        return toy(noisy, t, concatenated, seen, camera=camera)

    # The published sampler takes any prediction but v for noise; x0 models were never published.
    prediction = Prediction.V if parameters["parameterization"] == "v" else Prediction.EPS
    return _sampler(case).sample(
        predict,
        schedule=published_schedule(
            zero_terminal_snr=parameters["rescale_betas_zero_snr"],
            dynamic_rescale_base=parameters["base_scale"] if parameters["dynamic_rescale"] else None,
        ),
        prediction=prediction,
        shape=shape[1:],
        draws=ListedNoise(case),
        edits=[*_edits(case), recorder],
    )


def _sampler(case: Case) -> DDIMSampler:
    parameters = case.parameters
    # With the scale at 1 the published sampler ignores its camera guidance; ours refuses the combination.
    camera_scale = parameters["camera_cfg"] if parameters["cfg_scale"] != 1 else 1.0
    return DDIMSampler(
        steps=parameters["steps"],
        spacing=as_published(parameters["timestep_spacing"]),
        eta=parameters["eta"],
        temperature=1.0,
        guidance=Guidance(
            scale=parameters["cfg_scale"],
            rescale=parameters["guidance_rescale"],
            camera_scale=camera_scale,
            camera_schedule=parameters["camera_cfg_scheduler"],
        ),
    )


def _edits(case: Case) -> list[StepEdit]:
    parameters = case.parameters
    prefix, shape = parameters["key_prefix"], tuple(parameters["shape"])
    known = normal(f"{prefix}/z0", shape)
    edits: list[StepEdit] = []
    if parameters["inpaint_mask"]:
        edits.append(Inpaint(known=known, mask=_mask(case, "mask")))
    if parameters["paste_cond_frame"]:
        edits.append(PasteConditionFrame(known=known, condition_frame=torch.tensor(parameters["cond_frame_index"])))
    if parameters["num_overlap"]:
        edits.append(OverlapFrames(known=known[:, :, : parameters["num_overlap"]]))
    minimum = parameters["noise_shaping_minimum_timesteps"]
    if minimum is not None:
        scene = normal(f"{prefix}/scene", shape)
        edits.append(NoiseShaping(scene=scene, mask=_mask(case, "scene_mask"), minimum_timestep=minimum))
    return edits


def _mask(case: Case, name: str) -> Tensor:
    (share,) = (float(each) for each in case.stated(rf"\b{name}=random\(shape\)<([\d.]+)", of="inputs"))
    shape = tuple(case.parameters["shape"])
    return (uniform(f"{case.parameters['key_prefix']}/{name}", shape) < share).float()
