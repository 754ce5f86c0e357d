"""What sites say, and what is made of it. The sentences are those yt-dlp passes on; no site was asked here."""

from __future__ import annotations

import pytest
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError

from data_pipeline.download.classify import classify
from data_pipeline.download.status import Status


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ("Private video. Sign in if you've been granted access to this video", Status.PRIVATE),
        ("Video unavailable. This video is private", Status.PRIVATE),
        ("Video unavailable", Status.REMOVED),
        ("This video has been removed by the uploader", Status.REMOVED),
        (
            "Video unavailable. This video is no longer available because the account has been terminated",
            Status.REMOVED,
        ),
        ("Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies", Status.BLOCKED),  # noqa: RUF001
        ("Video unavailable. This content isn't available, try again later.", Status.BLOCKED),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", Status.AGE_RESTRICTED),
        ("Video unavailable. The uploader has not made this video available in your country", Status.REGION_BLOCKED),
        ("Join this channel to get access to members-only content like this video", Status.MEMBERS_ONLY),
        ("Something nobody has seen before", Status.FAILED),
    ],
)
def test_words(says: str, status: Status) -> None:
    error = ExtractorError(says, expected=True)
    assert classify(DownloadError(f"ERROR: [site] id: {says}", (ExtractorError, error, None)))[0] is status


def test_a_country_is_told_by_the_kind_of_error_too() -> None:
    assert classify(GeoRestrictedError("not here"))[0] is Status.REGION_BLOCKED


def test_a_full_disk_is_no_fault_of_the_video() -> None:
    with pytest.raises(ValueError, match="the disk is full"):
        classify(DownloadError("ERROR: unable to write data: [Errno 28] No space left on device"))
