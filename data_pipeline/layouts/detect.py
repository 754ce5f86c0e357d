"""Open a source folder with the reader of its layout: the one that was named, or the only one that recognises it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.layouts import cameractrl, cami2v, colmap, pixelsplat, realcam_vid, tum, videox_fun
from data_pipeline.layouts.clip import Layout, PosedClip, ReadSettings, SourceFolder
from data_pipeline.layouts.ids import check_clip_ids
from data_pipeline.realestate10k import layout as realestate10k


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How one layout is told from others and read."""

    recognise: Callable[[Path], bool]
    find_clips: Callable[[Path, ReadSettings], tuple[PosedClip, ...]]
    """Raises ValueError for what no reading of the folder can mean."""


READERS: Mapping[Layout, Reader] = {
    Layout.PIXELSPLAT: Reader(recognise=pixelsplat.recognise, find_clips=pixelsplat.find_clips),
    Layout.REALCAM_VID: Reader(recognise=realcam_vid.recognise, find_clips=realcam_vid.find_clips),
    Layout.CAMERACTRL: Reader(recognise=cameractrl.recognise, find_clips=cameractrl.find_clips),
    Layout.CAMI2V: Reader(recognise=cami2v.recognise, find_clips=cami2v.find_clips),
    Layout.VIDEOX_FUN: Reader(recognise=videox_fun.recognise, find_clips=videox_fun.find_clips),
    Layout.COLMAP: Reader(recognise=colmap.recognise, find_clips=colmap.find_clips),
    Layout.TUM: Reader(recognise=tum.recognise, find_clips=tum.find_clips),
}


def open_source(folder: Path, settings: ReadSettings) -> SourceFolder:
    """List the clips of a folder of posed videos.

    Raises ValueError where the folder does not exist, no or several layouts fit and none is named, the named one does
    not fit, or its contents contradict each other.
    """
    settings.validate()
    if not folder.is_dir():
        raise ValueError(f"source={folder}: no such folder; expected posed videos (docs/layouts.md) or 'synthetic'")
    layout = settings.layout if isinstance(settings.layout, Layout) else _only_match(folder)
    if layout is None or layout in realestate10k.LAYOUTS:
        return realestate10k.find_clips(folder, layout)
    clips = READERS[layout].find_clips(folder, settings)
    check_clip_ids([clip.clip_id for clip in clips], folder, layout)
    return SourceFolder(folder=folder, layout=layout, clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)))


def _only_match(folder: Path) -> Layout | None:
    """Return the foreign layout of a folder; None where there is none, so that the raw layouts are left."""
    matches = [layout for layout, reader in READERS.items() if reader.recognise(folder)]
    if len(matches) > 1:
        raise ValueError(
            f"source={folder}: could be {' or '.join(matches)}; say which with layout=<name> (docs/layouts.md)"
        )
    return matches[0] if matches else None
