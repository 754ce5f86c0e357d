"""Camera paths by structure from motion with pycolmap: SIFT once per clip, matching and mapping once per trial."""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import UInt8
from PIL import Image

from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
    SolutionQuality,
)
from cami2v.evaluation.pose_estimation.frame_matches import SMALLEST_SIDE_PIXELS
from cami2v.evaluation.pose_estimation.reversed_depth import better_of_both
from cami2v.evaluation.pose_estimation.solution_quality import (
    SolutionBounds,
    assess,
    best_fit,
    first_frame_points,
    registered_path,
)
from cami2v.evaluation.pose_estimation.two_view_matches import PairMatches, read_matches
from cami2v.evaluation.stopwatch import timed

ENLARGED = "enlarged frames"
REVERSED_DEPTH = "reversed depth"

_ENLARGE_BELOW_PIXELS = 400
"""Of the smaller side: larger frames have no small features that a larger picture of them would add."""
_FATAL = 3  # glog level: COLMAP reports an impossible reconstruction as an error, here it is a result


class StructureFromMotion(PoseEstimator):
    """SIFT (affine shape, domain size pooling), guided sequential matching, one PINHOLE camera with fx and fy.

    Everything runs on one CPU thread. The seed is that of the two-view RANSAC, the one whose change changes results.
    Three rescues go beyond the published pipeline; none looks at the true path. `check_reversed_depth`: of a solution
    and its depth-reversed counterpart, the one that the matches fit better is taken. `enlarge_partial`: a trial that
    registers some frames only is tried once more with the frames enlarged by this factor; 1: never. `attempts`: a trial
    runs that many seeds, and the path that the matches of all of them fit best is taken.
    """

    def __init__(
        self,
        *,
        max_error_pixels: float,
        overlap_frames: int,
        max_matches: int,
        check_reversed_depth: bool,
        enlarge_partial: int,
        attempts: int,
        bounds: SolutionBounds,
    ) -> None:
        for key, value in (("enlarge_partial", enlarge_partial), ("attempts", attempts)):
            if value < 1:
                raise ValueError(f"evaluation.estimator.{key}={value}: must be at least 1")
        self.max_error_pixels = max_error_pixels
        self.overlap_frames = overlap_frames
        self.max_matches = max_matches
        self.check_reversed_depth = check_reversed_depth
        self.enlarge_partial = enlarge_partial
        self.attempts = attempts
        self.bounds = bounds

    @abstractmethod
    def map(self, database: Path, images: Path, output: Path) -> dict[int, pycolmap.Reconstruction]:
        """Reconstruct from verified matches with the intrinsics held fixed; an empty dict where that is impossible."""

    def describe(self) -> dict[str, str | int | float]:
        """Return name, pycolmap's version and the settings."""
        settings = {name: value for name, value in vars(self).items() if name != "bounds"}
        return {"estimator": type(self).__name__, "pycolmap": pycolmap.__version__, **settings, **asdict(self.bounds)}

    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        """Estimate one camera per frame."""
        return self.estimate_trials(frames, intrinsics_pixels, (seed,))[0]

    def estimate_trials(
        self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seeds: Sequence[int]
    ) -> list[PoseEstimate]:
        """Estimate once per seed from the same features."""
        height, width = frames.shape[1:3]
        if min(height, width) < SMALLEST_SIDE_PIXELS:
            detail = f"frames of {height}x{width} pixels, the smaller side must have {SMALLEST_SIDE_PIXELS} at least"
            return [FailedEstimate(reason=FailureReason.TOO_SMALL, detail=detail) for _ in seeds]
        pycolmap.logging.minloglevel = _FATAL
        with tempfile.TemporaryDirectory(prefix="cami2v-poses-") as folder:
            clip = _extract(Path(folder, "clip"), frames, intrinsics_pixels)
            estimates = [self._trial(clip, seed) for seed in seeds]
            factor = self.enlarge_partial
            if factor == 1 or min(height, width) >= _ENLARGE_BELOW_PIXELS or not any(map(_is_partial, estimates)):
                return estimates
            enlarged = _extract(Path(folder, "enlarged"), _enlarge(frames, factor), factor * intrinsics_pixels)
            return [
                self._enlarged_trial(enlarged, seed, estimate) if _is_partial(estimate) else estimate
                for seed, estimate in zip(seeds, estimates, strict=True)
            ]

    def _enlarged_trial(self, clip: _Clip, seed: int, partial: PoseEstimate) -> PoseEstimate:
        estimate = self._trial(clip, seed)
        if isinstance(estimate, FailedEstimate):
            return partial
        assert isinstance(estimate.quality, SolutionQuality)
        rescued_by = ", ".join(filter(None, (ENLARGED, estimate.quality.rescued_by)))
        return replace(estimate, quality=replace(estimate.quality, rescued_by=rescued_by))

    def _trial(self, clip: _Clip, seed: int) -> PoseEstimate:
        attempts = [self._attempt(clip, self.attempts * seed + number) for number in range(self.attempts)]
        paths = [estimate for estimate, _ in attempts if isinstance(estimate, EstimatedPath)]
        if not paths:
            return attempts[0][0]
        pooled = [pair for _, matches in attempts for pair in matches]
        return best_fit(paths, pooled, clip.intrinsics_pixels, max_error_pixels=self.max_error_pixels)

    def _attempt(self, clip: _Clip, seed: int) -> tuple[PoseEstimate, list[PairMatches]]:
        with tempfile.TemporaryDirectory(dir=clip.features.parent) as folder:
            database, output = Path(folder, "matches.db"), Path(folder, "models")
            shutil.copyfile(clip.features, database)
            output.mkdir()
            self._match(database, seed)
            matches = read_matches(database)
            models = self.map(database, clip.images, output)
            if not models:
                verified = sum(len(pair.first) for pair in matches)
                return FailedEstimate(reason=FailureReason.NO_MODEL, detail=f"{verified} verified matches"), matches
            model = max(models.values(), key=lambda candidate: candidate.num_reg_images())
            path = registered_path(model, len(clip.intrinsics_pixels))
            if isinstance(path, FailedEstimate):
                return path, matches
            chosen = self._choose(model, matches, clip, database)
        path = registered_path(chosen, len(clip.intrinsics_pixels))
        assert not isinstance(path, FailedEstimate)
        with timed("checks"):
            quality = assess(chosen, path, matches, clip.intrinsics_pixels, max_error_pixels=self.max_error_pixels)
        if chosen is not model:
            quality = replace(quality, rescued_by=REVERSED_DEPTH)
        if (failure := self.bounds.violation(quality)) is not None:
            return failure, matches
        points = first_frame_points(chosen)
        return EstimatedPath(world_to_camera=path, quality=quality, first_frame_points=points), matches

    def _choose(
        self, model: pycolmap.Reconstruction, matches: list[PairMatches], clip: _Clip, database: Path
    ) -> pycolmap.Reconstruction:
        if not self.check_reversed_depth:
            return model
        with timed("reversed depth"):
            return better_of_both(
                model,
                matches,
                clip.intrinsics_pixels,
                database=database,
                images=clip.images,
                max_error_pixels=self.max_error_pixels,
            )

    @timed("matching")
    def _match(self, database: Path, seed: int) -> None:
        matching = pycolmap.FeatureMatchingOptions()
        matching.num_threads, matching.use_gpu = 1, False
        matching.guided_matching, matching.max_num_matches = True, self.max_matches
        pairing = pycolmap.SequentialPairingOptions()
        pairing.num_threads, pairing.overlap, pairing.quadratic_overlap = 1, self.overlap_frames, True
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.max_error, verification.ransac.random_seed = self.max_error_pixels, seed
        pycolmap.match_sequential(
            database,
            matching_options=matching,
            pairing_options=pairing,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clip:
    images: Path
    features: Path
    intrinsics_pixels: IntrinsicsPixels


def _extract(folder: Path, frames: Frames, intrinsics: IntrinsicsPixels) -> _Clip:
    folder.mkdir()
    clip = _Clip(images=folder / "images", features=folder / "features.db", intrinsics_pixels=intrinsics)
    _write_images(frames, clip.images)
    _extract_features(clip.features, clip.images, intrinsics)
    return clip


def _is_partial(estimate: PoseEstimate) -> bool:
    return isinstance(estimate, FailedEstimate) and estimate.reason is FailureReason.UNREGISTERED_FRAME


def _enlarge(frames: Frames, factor: int) -> UInt8[np.ndarray, "frames _ _ 3"]:
    height, width = frames.shape[1:3]
    size = (factor * width, factor * height)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])


def _write_images(frames: Frames, folder: Path) -> None:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:06d}.png", compress_level=1)


@timed("features")
def _extract_features(database: Path, images: Path, intrinsics: IntrinsicsPixels) -> None:
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads, extraction.use_gpu = 1, False
    extraction.sift.estimate_affine_shape, extraction.sift.domain_size_pooling = True, True
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "PINHOLE"
    reader.camera_params = ",".join(repr(float(value)) for value in intrinsics[0])
    constant = bool((intrinsics == intrinsics[0]).all())
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE if constant else pycolmap.CameraMode.PER_IMAGE,
        reader_options=reader,
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )
    if not constant:
        _set_cameras(database, intrinsics)


def _set_cameras(database: Path, intrinsics: IntrinsicsPixels) -> None:
    with pycolmap.Database.open(database) as opened:
        for image in opened.read_all_images():
            camera = opened.read_camera(image.camera_id)
            camera.params = intrinsics[int(Path(image.name).stem)]
            opened.update_camera(camera)
