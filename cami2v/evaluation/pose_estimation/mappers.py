"""The two mappers of pycolmap behind `StructureFromMotion`."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from cami2v.evaluation.pose_estimation.structure_from_motion import StructureFromMotion
from cami2v.evaluation.stopwatch import timed


class GlobalMapper(StructureFromMotion):
    """All cameras at once (GLOMAP, arXiv 2407.20219, inside pycolmap). Better and steadier on short clips."""

    @timed("mapping")
    def map(self, database: Path, images: Path, output: Path) -> dict[int, pycolmap.Reconstruction]:
        """Run rotation averaging, global positioning and bundle adjustment."""
        options = pycolmap.GlobalPipelineOptions()
        options.num_threads, options.random_seed = 1, 0
        mapper = options.mapper
        mapper.num_threads, mapper.random_seed = 1, 0
        mapper.global_positioning.use_gpu = False
        adjustment = mapper.bundle_adjustment
        adjustment.refine_focal_length = adjustment.refine_principal_point = adjustment.refine_extra_params = False
        adjustment.ceres.use_gpu, adjustment.ceres.solver_options.num_threads = False, 1
        return pycolmap.global_mapping(database, images, output, options)


class IncrementalMapper(StructureFromMotion):
    """Camera after camera (COLMAP). An alternative to compare with; on short clips worse than `GlobalMapper`."""

    @timed("mapping")
    def map(self, database: Path, images: Path, output: Path) -> dict[int, pycolmap.Reconstruction]:
        """Register and adjust camera after camera from one initial pair."""
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = 1, 0
        options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
        # A clip moves little: COLMAP's own 16 degrees and 100 inliers would refuse nearly every initial pair.
        options.mapper.init_min_tri_angle, options.mapper.init_min_num_inliers = 4.0, 50
        return pycolmap.incremental_mapping(database, images, output, options)
