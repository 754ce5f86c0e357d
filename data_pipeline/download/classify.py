"""Say what an error of yt-dlp means for a video. Sites tell it in words, so most of this is matching of their words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from yt_dlp.networking.exceptions import HTTPError, RequestError
from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UnsupportedError, YoutubeDLError

from data_pipeline.download.status import Status

# In this order: "Video unavailable" also starts the messages of rate limits and of other countries.
_WORDS = (
    (Status.BLOCKED, r"not a bot|too many requests|rate.?limit|try again later|captcha|unusual traffic"),
    (Status.AGE_RESTRICTED, r"confirm your age|age.restricted|inappropriate for some users"),
    (Status.MEMBERS_ONLY, r"members.only|join this channel|requires payment|purchase|rental"),
    (Status.REGION_BLOCKED, r"your country|your region|your location|geo.?restrict"),
    (Status.PRIVATE, r"private video|video is private|is private"),
    (
        Status.REMOVED,
        r"video (is )?unavailable|been removed|removed by|no longer (available|exists)|does not exist|doesn.t exist|"
        r"(isn.t|is not) available any ?more|been terminated|been closed|been deleted|incomplete [a-z]+ id",
    ),
    (Status.NETWORK, r"got error:|timed? ?out|connection (reset|refused|aborted)|bytes read|name resolution"),
)
_HTTP = {
    401: Status.BLOCKED,
    403: Status.BLOCKED,
    404: Status.REMOVED,
    410: Status.REMOVED,
    429: Status.BLOCKED,
    451: Status.REGION_BLOCKED,
}
_DISK_FULL = re.compile(r"no space left|disk quota exceeded", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def classify(error: BaseException) -> tuple[Status, str]:
    """Return the status and the message in one line.

    Raises ValueError where the disk is full: no video's fault, and the next one would fail as well.
    """
    message = " ".join(_COLOURS.sub("", str(error)).removeprefix("ERROR: ").split())[:500]
    if _DISK_FULL.search(message):
        raise ValueError(f"the disk is full ({message}); make room and run the same command again")
    causes = list(_causes(error))
    codes = [cause.status for cause in causes if isinstance(cause, HTTPError)]
    if codes:
        return _HTTP.get(codes[0], Status.NETWORK if codes[0] >= 500 else Status.FAILED), message
    for status, words in _WORDS:
        if re.search(words, message, re.IGNORECASE):
            return status, message
    for kinds, status in (
        ((GeoRestrictedError,), Status.REGION_BLOCKED),
        ((UnsupportedError,), Status.NOT_A_VIDEO),
        ((RequestError, ContentTooShortError, OSError), Status.NETWORK),
    ):
        if any(isinstance(cause, kinds) for cause in causes):
            return status, message
    return Status.FAILED, message


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk to the first error: yt-dlp keeps it in `exc_info` or `cause`, Python in `__cause__` or `__context__`."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        if isinstance(each, YoutubeDLError):
            exc_info = getattr(each, "exc_info", None)
            waiting += [exc_info[1] if exc_info else None, getattr(each, "cause", None)]
        waiting += [each.__cause__, each.__context__]
