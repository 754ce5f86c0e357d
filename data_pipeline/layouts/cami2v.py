"""Read CamI2V's prepared RealEstate10K: valid_metadata/<split>/<clip>.txt and the cut clips they name.

A metadata file is a camera file with three header lines: address, path of the clip, caption (docs/pack.md). The folder
also keeps the original pose_files/ and videos/, which are left alone.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.layouts.clip import Layout, PosedClip, ReadSettings
from data_pipeline.realestate10k.layout import ClipFiles, pose_paths, read_captions, read_metric_scales
from data_pipeline.realestate10k.parse import first_line

_FOLDERS = ("valid_metadata", "valid_meta")  # CamI2V's README says the one, its guide to the data the other


def recognise(folder: Path) -> bool:
    """Return whether the folder of metadata files is there."""
    return _metadata(folder) is not None


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the clips of all metadata files; raises ValueError where there are none."""
    metadata = _metadata(folder)
    if metadata is None:
        raise ValueError(f"source={folder}: has no {_FOLDERS[0]}/, so it is not in the layout {Layout.CAMI2V}")
    captions, scales = read_captions(folder), read_metric_scales(folder)
    return tuple(
        ClipFiles(
            clip_id=path.stem,
            split=split,
            folder=folder,
            layout=Layout.CLIPS,
            address=first_line(path),
            pose_path=path,
            captions=captions.get(path.stem, ()),
            metric_scale=scales.get(path.stem),
        )
        for path, split in pose_paths(metadata)
    )


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in _FOLDERS if (folder / name).is_dir()), None)
