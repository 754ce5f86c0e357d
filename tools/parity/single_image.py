"""Cases of one image, or two, as a model's input, under the published rules (`compatibility="published"`)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.geometry.cameras import intrinsic_matrix
from cami2v.geometry.framing import framing_for
from cami2v.inference.image_clip import Compatibility, choose_trajectory, image_clip, target_resolution
from tools.parity.cases import Case, find_cases, generator
from tools.parity.checks import Checks

GREY_LEVEL = 2 / 255
"""One step of an 8-bit image on the [-1, 1] scale."""

USUAL_SIZES = ((360, 640), (400, 500), (720, 1280), (480, 640), (300, 300))
USUAL_RESOLUTIONS = ((256, 256), (320, 512))


def single_image(case: Case) -> Checks:
    """Compare the framed image, the guessed intrinsics and the frame rate; a portrait image swaps the resolution."""
    height, width = case.parameters["source"]
    resolution = (case.parameters["resolution_cfg"][0], case.parameters["resolution_cfg"][1])
    frames, stride = case.parameters["K_shape"][1], case.parameters["frame_stride"]
    image = _image(f"{case.key}/image", height, width)
    published = _clip(image, resolution, frames, stride)
    checks = Checks()
    target = target_resolution(height, width, resolution, "swap")
    checks.equal("size", list(target), case.parameters["out_HW"])
    checks.equal("video size", list(published.video.shape[-2:]), case.parameters["out_HW"])
    checks.equal("resized", list(framing_for(height, width, target).resized), case.parameters["resized"])

    first = published.video[0, :, 0]
    sample = first[:, case["sample_y"]][..., case["sample_x"]]
    checks.close("sample", sample, case["sample"], maximum=1.01 * GREY_LEVEL)
    checks.at_most("mean", abs(float(first.double().mean()) - case.parameters["mean"]), 1e-5)
    checks.equal("every frame is the image", bool((published.video[0] == first[:, None]).all()), True)
    unrounded = _clip(image, resolution, frames, stride, compatibility="none").video
    rounding = float((published.video - unrounded).abs().max())
    checks.at_most("rounding", abs(rounding - case.parameters["max_diff_vs_float_resize"]), 1e-5)

    matrix = intrinsic_matrix(published.cameras.intrinsics_pixels)
    theirs = torch.tensor(case.parameters["K"], dtype=torch.float64).expand(*case.parameters["K_shape"])
    checks.close("K", matrix, theirs, maximum=1e-3)
    checks.equal("fps", float(published.frames_per_second.floor()), case.parameters["fps"])
    return checks


def two_images(case: Case) -> Checks:
    """Compare the mean of every frame where the second image replaces the last.

    The case spells neither keys nor sizes of its images. They are looked for among the usual ones and those of the
    folder's other images; where none has the stored mean, which frames equal which is still compared.
    """
    means = torch.tensor(case.parameters["frame_means"], dtype=torch.float64)
    frames = len(means)
    checks = Checks()
    for resolution in _resolutions(case):
        images = [
            _image_of_mean(case, key, float(mean), resolution) for key, mean in zip("ab", means[[0, -1]], strict=True)
        ]
        if images[0] is not None and images[1] is not None:
            video = _clip(images[0], resolution, frames, 1, last_image=images[1]).video
            checks.close("frame_means", video[0].double().mean(dim=(0, 2, 3)), means, maximum=1e-6)
            return checks
    video = _clip(_image("a", 30, 40), (20, 30), frames, 1, last_image=_image("b", 50, 40)).video
    ours = video[0].mean(dim=(0, 2, 3))
    same = [(values[:, None] == values).tolist() for values in (ours, means)]
    checks.equal("frames that are equal (images of the case not identified)", same[0], same[1])
    return checks


def _clip(
    image: Tensor,
    resolution: tuple[int, int],
    frames: int,
    stride: int,
    *,
    compatibility: Compatibility = "published",
    last_image: Tensor | None = None,
) -> ClipBatch:
    return image_clip(
        image,
        choose_trajectory("static", frames=frames, extent=0.0),
        caption="",
        resolution=resolution,
        portrait="swap",
        field_of_view_degrees=None,
        frame_stride=stride,
        frames_per_second=None,
        seed=0,
        compatibility=compatibility,
        last_image=last_image,
    )


def _image(key: str, height: int, width: int) -> Tensor:
    pixels = generator(key).integers(0, 256, (height, width, 3), np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def _image_of_mean(case: Case, key: str, mean: float, resolution: tuple[int, int]) -> Tensor | None:
    # In the published folder the keys are data/two/a and data/two/b.
    folders = ("data/two", case.key)
    for (height, width), folder in itertools.product(dict.fromkeys(_sizes(case)), folders):
        image = _image(f"{folder}/{key}", height, width)
        framed = _clip(image, resolution, 1, 1).video
        if abs(float(framed.double().mean()) - mean) < 1e-8:
            return image
    return None


def _sizes(case: Case) -> Iterator[tuple[int, int]]:
    yield from USUAL_SIZES
    for other in find_cases(case.folder):
        size = re.match(r"data__(?:single_image|resize)__(\d+)x(\d+)_to_", other.name)
        if size:
            yield int(size.group(1)), int(size.group(2))


def _resolutions(case: Case) -> list[tuple[int, int]]:
    found = [re.match(r"data__single_image__.*_to_(\d+)x(\d+)$", other.name) for other in find_cases(case.folder)]
    return list(
        dict.fromkeys([*USUAL_RESOLUTIONS, *((int(size.group(1)), int(size.group(2))) for size in found if size)])
    )
