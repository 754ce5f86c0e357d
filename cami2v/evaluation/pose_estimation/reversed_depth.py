"""The other solution of nearly affine views: depth reversed, the camera turning the other way (Necker's reversal).

Far or flat scenes fit both; bundle adjustment leaves neither for the other. Perspective tells them apart, and with it
the matches, once both are known. Harris (1987), and Szeliski and Kang, "Shape ambiguities in structure from motion"
(PAMI 1997).
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
import pycolmap

from cami2v.evaluation.pose_estimation.base import IntrinsicsPixels
from cami2v.evaluation.pose_estimation.solution_quality import registered_path
from cami2v.evaluation.pose_estimation.two_view_matches import PairMatches, epipolar_cost

_MIRROR = np.diag([1.0, 1.0, -1.0])
_NEAREST_TO_CENTER = 1e-3
_ROUNDS = 2
"""Of triangulation and adjustment: a wrong solution had dropped the points that contradicted it."""
_HOPELESS = 3.0
"""Times the given solution's cost, before new points: counterparts of true solutions cost 2 to 9 times as much on real
clips, true solutions 0.3 to 1.2 times as much as the reversed ones they were made from."""
_CLEARLY = 0.8
"""Times the given solution's cost, in the end: where adjustment leads back to the same solution, it costs about as much
and there is nothing to choose."""


def better_of_both(
    model: pycolmap.Reconstruction,
    matches: list[PairMatches],
    intrinsics_pixels: IntrinsicsPixels,
    *,
    database: Path,
    images: Path,
    max_error_pixels: float,
) -> pycolmap.Reconstruction:
    """Return the reconstruction, or its depth-reversed counterpart where the matches clearly fit that one better.

    Every frame of the reconstruction must have a pose.
    """

    def cost(candidate: pycolmap.Reconstruction) -> float:
        path = registered_path(candidate, len(intrinsics_pixels))
        if not isinstance(path, np.ndarray):
            return np.inf
        return epipolar_cost(matches, path, intrinsics_pixels, max_error_pixels=max_error_pixels)

    given = cost(model)
    counterpart = reverse_depth(model)
    _adjust(counterpart)
    if cost(counterpart) > _HOPELESS * given:
        return model
    with tempfile.TemporaryDirectory(dir=database.parent) as folder:
        for _ in range(_ROUNDS):
            counterpart = _triangulate(counterpart, database, images, Path(folder))
            _adjust(counterpart)
    counterpart.update_point_3d_errors()
    return counterpart if cost(counterpart) < _CLEARLY * given else model


def reverse_depth(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """Return a copy whose depths, as the middle frame sees them, are reversed about their median, with all rotations.

    Points keep their images in the middle frame exactly, and in the others up to perspective.
    """
    reversed_model = copy.deepcopy(model)
    images = sorted((image for image in reversed_model.images.values() if image.has_pose), key=lambda each: each.name)
    middle = images[len(images) // 2].cam_from_world().matrix()
    seen = {number: middle[:, :3] @ point.xyz + middle[:, 3] for number, point in reversed_model.points3D.items()}
    center = np.median(list(seen.values()), axis=0) if seen else np.array([0.0, 0.0, 1.0])
    for image in images:
        pose = image.cam_from_world().matrix()
        rotation = pose[:, :3] @ middle[:, :3].T
        center_seen = rotation @ (center - middle[:, 3]) + pose[:, 3]
        turned = _MIRROR @ rotation @ _MIRROR
        frame = reversed_model.frames[image.frame_id]
        frame.rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(turned), center_seen - turned @ center)
    for number, point in seen.items():
        if point[2] > 0:
            depth = max(point[2], _NEAREST_TO_CENTER * center[2])
            point = point * (center[2] ** 2 / depth / point[2])
        reversed_model.points3D[number].xyz = point
    return reversed_model


def _adjust(model: pycolmap.Reconstruction) -> None:
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_principal_point = options.refine_extra_params = False
    options.print_summary = False
    ceres = options.ceres
    ceres.loss_function_type, ceres.loss_function_scale = pycolmap.LossFunctionType.HUBER, 1.0
    ceres.use_gpu, ceres.solver_options.num_threads = False, 1
    ceres.solver_options.max_num_iterations, ceres.solver_options.function_tolerance = 100, 1e-6
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.images.values():
        if image.has_pose:
            config.add_image(image.image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # Not pycolmap.bundle_adjustment, which makes COLMAP's log verbose again for the whole process.
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def _triangulate(model: pycolmap.Reconstruction, database: Path, images: Path, output: Path) -> pycolmap.Reconstruction:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, 0
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    # A clip moves little: as small an angle as the global mapper's.
    options.triangulation.min_angle = options.mapper.filter_min_tri_angle = 1.0
    return pycolmap.triangulate_points(
        model, database, images, output, clear_points=True, options=options, refine_intrinsics=False
    )
