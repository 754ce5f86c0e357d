"""Camera paths by structure from motion with pycolmap: SIFT once per clip, matching and mapping once per trial."""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pycolmap
from PIL import Image

from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
)
from cami2v.evaluation.pose_estimation.solution_quality import SolutionBounds, assess, registered_path
from cami2v.evaluation.pose_estimation.two_view_matches import read_matches

SMALLEST_SIDE_PIXELS = 32
"""Frames below 16 pixels make pycolmap 4.2.1 abort; up to here it finds a handful of features at best."""

_FATAL = 3  # glog level: COLMAP reports an impossible reconstruction as an error, here it is a result


class StructureFromMotion(PoseEstimator):
    """SIFT (affine shape, domain size pooling), guided sequential matching, one PINHOLE camera with fx and fy.

    Everything runs on one CPU thread. The seed is that of the two-view RANSAC, the one whose change changes results.
    """

    def __init__(
        self, *, max_error_pixels: float, overlap_frames: int, max_matches: int, bounds: SolutionBounds
    ) -> None:
        self.max_error_pixels = max_error_pixels
        self.overlap_frames = overlap_frames
        self.max_matches = max_matches
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
            images, features = Path(folder, "images"), Path(folder, "features.db")
            _write_images(frames, images)
            _extract_features(features, images, intrinsics_pixels)
            return [self._trial(features, images, intrinsics_pixels, seed) for seed in seeds]

    def _trial(self, features: Path, images: Path, intrinsics: IntrinsicsPixels, seed: int) -> PoseEstimate:
        with tempfile.TemporaryDirectory(dir=features.parent) as folder:
            database, output = Path(folder, "matches.db"), Path(folder, "models")
            shutil.copyfile(features, database)
            output.mkdir()
            self._match(database, seed)
            matches = read_matches(database)
            models = self.map(database, images, output)
        if not models:
            verified = sum(len(pair.first) for pair in matches)
            return FailedEstimate(reason=FailureReason.NO_MODEL, detail=f"{verified} verified matches")
        model = max(models.values(), key=lambda candidate: candidate.num_reg_images())
        path = registered_path(model, len(intrinsics))
        if isinstance(path, FailedEstimate):
            return path
        quality = assess(model, path, matches, intrinsics, max_error_pixels=self.max_error_pixels)
        return self.bounds.violation(quality) or EstimatedPath(world_to_camera=path, quality=quality)

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


def _write_images(frames: Frames, folder: Path) -> None:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:06d}.png", compress_level=1)


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
