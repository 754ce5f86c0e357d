"""Weights files on the Hugging Face hub: what it says about them, and a download that continues where it stopped."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from cami2v.file_hash import file_sha256

GIGABYTE = 10**9
_SPACES = "spaces/"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository, as the hub describes it."""

    repository: str
    path: str
    revision: str
    """Commit that the answer is about."""
    size: int | None
    sha256: str | None
    """None for small files, which the hub stores outside LFS."""
    licence: str | None
    """The repository's tag."""
    gated: bool


def ask_hub(repository: str, *, revision: str | None = None, endpoint: str | None = None) -> dict[str, HubFile]:
    """List the files of a model repository, or of a space (spaces/<name>), by path.

    Raises ValueError in one line where the hub cannot be reached, or has no such repository or revision.
    """
    where = f"{repository}{f' at {revision}' if revision else ''}"
    with _explained(where, endpoint):
        hub = HfApi(endpoint=endpoint)
        ask = hub.space_info if _kind(repository) == "space" else hub.model_info
        info = ask(repository.removeprefix(_SPACES), revision=revision, files_metadata=True)
    tags = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    return {
        sibling.rfilename: HubFile(
            repository=repository,
            path=sibling.rfilename,
            revision=str(info.sha),
            size=sibling.size,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            licence=tags[0] if tags else None,
            gated=bool(getattr(info, "gated", False)),
        )
        for sibling in info.siblings or []
    }


def fetch(file: HubFile, target: Path, *, endpoint: str | None = None, say: Callable[[str], None] = print) -> None:
    """Download a file to `target`, continuing an earlier attempt, and verify its size and hash.

    `target` appears complete and verified or not at all. Raises ValueError in one line for a foreign file at `target`,
    too little space, no connection or permission, and for damaged content (which is then removed).
    """
    if target.exists():
        damage = _damage(target, file)
        if damage:
            raise ValueError(f"{target}: exists, but {damage}; move it away, or choose another folder with --to")
        say(f"already there, verified: {target}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of this content only: an attempt at another revision is not continued.
    partial = target.with_name(f".{target.name}.{(file.sha256 or file.revision)[:12]}.partial")
    if file.size is not None and _size_of(partial) > file.size:
        partial.unlink()
    _check_space(file, partial)
    held = _size_of(partial)
    if held:
        say(f"continuing after {held / GIGABYTE:.2f} GB in {partial}")
    kept = f"what has arrived stays in {partial}; the same command continues"
    with _explained(f"{file.repository}/{file.path}", endpoint, kept):
        _download(file, partial, endpoint)
    damage = _damage(partial, file)
    if damage:
        partial.unlink()
        raise ValueError(f"{file.repository}/{file.path}: arrived damaged ({damage}) and was removed; fetch it again")
    partial.replace(target)


def _download(file: HubFile, partial: Path, endpoint: str | None) -> None:
    """Append what is missing. `hf_hub_download` would start over in a new process (huggingface_hub 2.4)."""
    url = hf_hub_url(
        file.repository.removeprefix(_SPACES), file.path, repo_type=_kind(file.repository), revision=file.revision,
        endpoint=endpoint,
    )  # fmt: skip
    source = get_hf_file_metadata(url, endpoint=endpoint)
    headers = build_hf_headers()
    if urlparse(source.location).netloc != urlparse(url).netloc:
        # The storage behind the hub has signed addresses, and refuses a second authorisation.
        headers.pop("authorization", None)
    partial.touch()
    with partial.open("r+b") as opened:
        held = opened.seek(0, 2)
        http_get(
            source.location, opened, resume_size=held, headers=headers, expected_size=file.size,
            displayed_filename=Path(file.path).name,
        )  # fmt: skip


def _kind(repository: str) -> str:
    return "space" if repository.startswith(_SPACES) else "model"


def _damage(path: Path, file: HubFile) -> str | None:
    """Say in what a file differs from what the hub describes; None where it does not."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size} bytes, the hub says {file.size}"
    if file.sha256 is not None and (found := file_sha256(path)) != file.sha256:
        return f"its sha256 is {found}, the hub says {file.sha256}"
    return None


def _check_space(file: HubFile, partial: Path) -> None:
    if file.size is None:
        return
    missing, free = file.size - _size_of(partial), shutil.disk_usage(partial.parent).free
    if missing > free:
        raise ValueError(
            f"{partial.parent}: {missing / GIGABYTE:.2f} GB needed, {free / GIGABYTE:.2f} GB free; make room, or "
            "choose another folder with --to"
        )


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _explained(what: str, endpoint: str | None, kept: str = "") -> Iterator[None]:
    """Turn what the hub or the network answers into one line."""
    hub = endpoint or constants.ENDPOINT
    after = f" ({kept})" if kept else ""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{what}: HF_HUB_OFFLINE is set, so the hub is not asked; unset it") from error
    except GatedRepoError as error:
        raise ValueError(
            f"{what}: gated; accept its terms at {hub}/{what.partition(' ')[0]} and log in (`hf auth login`)"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{what}: {hub} has no such repository, or it is private (log in with `hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{what}: {hub} has no such revision; leave --revision out for the newest") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise ValueError(f"{what}: {hub} answered with status {status}; try again later{after}") from error
    except HTTPError as error:
        raise ValueError(f"{what}: no connection to {hub} ({type(error).__name__}: {error}){after}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ValueError(f"{what}: the disk is full; make room{after}") from error
        raise ValueError(f"{what}: {' '.join(str(error).split())}{after}") from error
