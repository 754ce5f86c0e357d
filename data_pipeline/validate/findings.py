"""What validation can find: one rule per check, and a finding that names the place and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Training on it is impossible or teaches something false."""
    WARNING = "warning"
    """Likely not what was meant; a person should look."""
    NOTE = "note"
    """Good to know."""


class Check(StrEnum):
    """What is looked for; names are stable, reports are read by machines. Those of bad_clips.Reason mean the same."""

    MANIFEST_UNREADABLE = "manifest_unreadable"
    SHARD_MISSING = "shard_missing"
    SHARD_HASH_MISMATCH = "shard_hash_mismatch"
    INDEX_MISMATCH = "index_mismatch"
    MEMBER_CORRUPT = "member_corrupt"
    VIDEO_MISSING = "video_missing"
    VIDEO_UNREADABLE = "video_unreadable"
    CAPTION_MISSING = "caption_missing"
    POSE_FILE_MALFORMED = "pose_file_malformed"
    POSE_NOT_FINITE = "pose_not_finite"
    ROTATION_NOT_RIGID = "rotation_not_rigid"
    POSES_INVERTED = "poses_inverted"
    POSES_OFF_FRAMES = "poses_off_frames"
    INTRINSICS_NOT_NORMALIZED = "intrinsics_not_normalized"
    INTRINSICS_IMPLAUSIBLE = "intrinsics_implausible"
    INTRINSICS_OFF_FRAMES = "intrinsics_off_frames"
    PIXEL_ASPECT_WRONG = "pixel_aspect_wrong"
    PIXELS_SQUASHED = "pixels_squashed"
    TIMESTAMPS_NOT_INCREASING = "timestamps_not_increasing"
    TIMESTAMPS_FAR = "timestamps_far"
    FRAME_RATE_MISMATCH = "frame_rate_mismatch"
    FRAME_RATE_OF_CUT_CLIP = "frame_rate_of_cut_clip"
    FRAME_COUNT_MISMATCH = "frame_count_mismatch"
    FRAME_NOT_FOUND = "frame_not_found"
    FRAME_SIZE_MISMATCH = "frame_size_mismatch"
    METRIC_SCALE_MALFORMED = "metric_scale_malformed"
    METRIC_SCALE_STALE = "metric_scale_stale"
    METRIC_SCALE_MISSING = "metric_scale_missing"
    STILL_CAMERA = "still_camera"
    JUMPING_CAMERA = "jumping_camera"
    TOO_SHORT = "too_short"
    DUPLICATE_CLIP = "duplicate_clip"
    DUPLICATE_ACROSS_SPLITS = "duplicate_across_splits"
    SOURCE_UNKNOWN = "source_unknown"
    SOURCE_LEAK = "source_leak"


@dataclass(frozen=True, slots=True)
class Rule:
    """How bad it is, what is allowed, and what to do."""

    severity: Severity
    allowed: str
    remedy: str


_COPY = "copy the shard again, or pack it again"
_LEAVE_OUT = "repair the camera file, or leave the clip out"

RULES = {
    Check.MANIFEST_UNREADABLE: Rule(Severity.ERROR, "a manifest of version 1 (docs/data-format.md)", "pack it again"),
    Check.SHARD_MISSING: Rule(Severity.ERROR, "every shard that the manifest lists", _COPY),
    Check.SHARD_HASH_MISMATCH: Rule(Severity.ERROR, "the size and sha256 in manifest.json", _COPY),
    Check.INDEX_MISMATCH: Rule(
        Severity.ERROR, "an index that fits tar and manifest", "delete the .index.json to have it made again"
    ),
    Check.MEMBER_CORRUPT: Rule(Severity.ERROR, "mp4, cameras.npz and json with the checksums noted", _COPY),
    Check.VIDEO_MISSING: Rule(Severity.ERROR, "a video for every camera file", "download it, or leave the clip out"),
    Check.VIDEO_UNREADABLE: Rule(Severity.ERROR, "every frame decodes", "download it again, or leave the clip out"),
    Check.CAPTION_MISSING: Rule(
        Severity.ERROR, "at least one caption that is not blank", "caption it, or pack with pack.default_caption"
    ),
    Check.POSE_FILE_MALFORMED: Rule(Severity.ERROR, "cameras as in docs/pack.md and docs/data-format.md", _LEAVE_OUT),
    Check.POSE_NOT_FINITE: Rule(Severity.ERROR, "finite numbers", _LEAVE_OUT),
    Check.ROTATION_NOT_RIGID: Rule(Severity.ERROR, "R R^T within 0.001 of the identity, det R = +1", _LEAVE_OUT),
    Check.POSES_INVERTED: Rule(
        Severity.ERROR, "world-to-camera poses", "invert the poses: they are camera-to-world, or mean it"
    ),
    Check.POSES_OFF_FRAMES: Rule(
        Severity.WARNING,
        "a median Sampson error below 2 pixels",
        "look at the clip: other video, other axes, or a cut?",
    ),
    Check.INTRINSICS_NOT_NORMALIZED: Rule(
        Severity.ERROR, "fx, cx over the width and fy, cy over the height", "divide by the frame's width and height"
    ),
    Check.INTRINSICS_IMPLAUSIBLE: Rule(
        Severity.ERROR, "focal lengths 0.1 to 10, principal point 0 to 1, pixels 1/2 to 2, steady to 1 %", _LEAVE_OUT
    ),
    Check.INTRINSICS_OFF_FRAMES: Rule(
        Severity.WARNING, "the focal lengths that matches ask for", "was the video cropped? move the intrinsics along"
    ),
    Check.PIXEL_ASPECT_WRONG: Rule(
        Severity.ERROR, "fy * height / (fx * width), within 2 %", "pack it again: the loader would not undo the squash"
    ),
    Check.PIXELS_SQUASHED: Rule(
        Severity.WARNING,
        "square pixels, within 1 %",
        "none for cami2v, it makes pixels square; other readers must stretch the frame",
    ),
    Check.TIMESTAMPS_NOT_INCREASING: Rule(Severity.ERROR, "later than the frame before", _LEAVE_OUT),
    Check.TIMESTAMPS_FAR: Rule(
        Severity.WARNING, "decoded within 8 ms of the annotation", "get the upload that was annotated"
    ),
    Check.FRAME_RATE_MISMATCH: Rule(
        Severity.ERROR, "one rate in video, json and timestamps, within 2 %", "pack it again from the right video"
    ),
    Check.FRAME_RATE_OF_CUT_CLIP: Rule(
        Severity.NOTE, "a cut clip that plays as fast as it was filmed", "none unless the model is told the frame rate"
    ),
    Check.FRAME_COUNT_MISMATCH: Rule(
        Severity.ERROR, "one camera for each frame", "cut the clip again, or leave it out"
    ),
    Check.FRAME_NOT_FOUND: Rule(Severity.ERROR, "a frame at every annotated time", "get the upload that was annotated"),
    Check.FRAME_SIZE_MISMATCH: Rule(Severity.ERROR, "frames of the size in the json", "pack it again"),
    Check.METRIC_SCALE_MALFORMED: Rule(
        Severity.ERROR, "one positive, finite number, or one per frame", "repair metric_scale.json and pack it again"
    ),
    Check.METRIC_SCALE_STALE: Rule(
        Severity.ERROR, "a scale estimated with these cameras", "estimate it again: cami2v data scale source=<folder>"
    ),
    Check.METRIC_SCALE_MISSING: Rule(
        Severity.ERROR,
        "a scale for every clip of a metric set",
        "estimate it: cami2v data scale source=<folder>, and pack it again",
    ),
    Check.STILL_CAMERA: Rule(Severity.WARNING, "a camera that moves or turns", "leave the clip out of camera training"),
    Check.JUMPING_CAMERA: Rule(
        Severity.WARNING,
        "no step 10 times the others and 4 times its neighbours",
        "split the clip there, or leave it out",
    ),
    Check.TOO_SHORT: Rule(
        Severity.WARNING, "validate.min_frames frames", "leave the clip out, or train on fewer frames"
    ),
    Check.DUPLICATE_CLIP: Rule(Severity.WARNING, "each clip once", "leave one of them out"),
    Check.DUPLICATE_ACROSS_SPLITS: Rule(
        Severity.ERROR, "no clip in two splits", "leave it out of training: the test would score what was trained on"
    ),
    Check.SOURCE_UNKNOWN: Rule(
        Severity.ERROR,
        "a source video for every clip",
        "name it (docs/layouts.md), or reading.each_clip_is_a_source=true",
    ),
    Check.SOURCE_LEAK: Rule(
        Severity.ERROR, "clips of one source video in one split", "split by source video, and pack it again"
    ),
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What a check saw; it does not know where."""

    check: Check
    found: str
    frame: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a clip is: its shard (or camera file), id and split."""

    shard: str
    clip: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        return self.shard if self.clip is None else f"{self.shard} clip {self.clip}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, where, and what to do about it."""

    severity: Severity
    check: Check
    shard: str
    clip: str | None
    frame: int | None
    found: str
    allowed: str
    remedy: str


def finding(observation: Observation, place: Place) -> Finding:
    """Complete an observation with its place and its rule."""
    rule = RULES[observation.check]
    return Finding(
        severity=rule.severity,
        check=observation.check,
        shard=place.shard,
        clip=place.clip,
        frame=observation.frame,
        found=observation.found,
        allowed=rule.allowed,
        remedy=rule.remedy,
    )
