"""Upload of a folder to a model repository on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled


def push_folder(
    folder: Path, repository: str, *, private: bool, endpoint: str | None = None, say: Callable[[str], None] = print
) -> str:
    """Create a repository where there is none, put a folder's files into it as one commit, and return its address.

    Raises ValueError in one line where the hub cannot be reached, refuses, or nobody is logged in.
    """
    hub = endpoint or constants.ENDPOINT
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"{folder.name}, exported by cami2v"
        )
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{repository}: HF_HUB_OFFLINE is set, so nothing is uploaded; unset it") from error
    except LocalTokenNotFoundError as error:
        raise ValueError(f"{repository}: nobody is logged in; `hf auth login` with a token that may write") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise ValueError(
            f"{repository}: {hub} answered with status {status}; log in (`hf auth login`) with a token that may write "
            "there, or try again later"
        ) from error
    except HTTPError as error:
        raise ValueError(f"{repository}: no connection to {hub} ({type(error).__name__}: {error})") from error
    say(f"uploaded {folder} to {commit.commit_url}")
    return str(commit.commit_url)
