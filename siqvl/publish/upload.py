"""A checked folder to the Hugging Face hub, and whether it arrived.

The token is huggingface_hub's own affair: HF_TOKEN or what `hf auth login` kept. It is not asked
for, not an option, and stands in no message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.errors import UserError, one_line
from siqvl.files import file_sha256

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAIN = "main"


def upload(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    branch: str | None = None,
    message: str,
    api: HfApi | None = None,
) -> str:
    """Upload a folder as one commit, and compare what the hub lists then with the files.

    Files that the repository had before and the folder has not are deleted by the commit.

    Args:
        repository: a hub id; it is made if there is none.
        private: whether it is made private, whatever the hub's default; one that exists stays as
            it is.
        branch: is made from `main` if there is none; None: `main` itself.
        api: of the hub; None: as huggingface_hub is configured.

    Returns:
        The commit's address.

    Raises:
        UserError: the hub cannot be reached or refuses, or has other files afterwards.
    """
    from huggingface_hub import HfApi

    hub = api or HfApi()
    with _sentence(repository):
        hub.create_repo(repository, private=private or None, exist_ok=True)
        if branch and branch != MAIN:
            hub.create_branch(repository, branch=branch, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=branch or MAIN,
            commit_message=message,
            delete_patterns="*",
        )
        listed = list(hub.list_repo_tree(repository, recursive=True, revision=branch or MAIN))
    _check_arrived(folder, listed, repository)
    return str(commit.commit_url)


def _check_arrived(folder: Path, listed: list, repository: str) -> None:
    """Compare sizes and digests that the hub lists with the files.

    Raises:
        UserError: a file is missing there, or is another.
    """
    there = {one.path: one for one in listed if hasattr(one, "blob_id")}
    wrong = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        found = there.get(name)
        if found is None:
            wrong.append(f"{name} is missing")
        elif found.size != path.stat().st_size:
            wrong.append(f"{name} has {found.size:,} bytes there")
        elif found.lfs is not None:
            if found.lfs.sha256 != file_sha256(path):
                wrong.append(f"{name} has another content there")
        elif found.blob_id != git_blob(path):
            wrong.append(f"{name} has another content there")
    if wrong:
        raise UserError(
            f"{repository} is not what was uploaded: {', '.join(wrong[:3])}; publish it again"
        )


def git_blob(path: Path) -> str:
    """Return the id that git gives a file: sha1 over a head and its content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def _sentence(repository: str) -> Iterator[None]:
    """What goes wrong with the hub in one line, without what a request was sent with."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(
            "the hub takes uploads from who is logged in alone: `hf auth login`, or set HF_TOKEN"
        ) from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set: nothing can be uploaded") from None
    except HFValidationError as error:
        raise UserError(f"{repository} is no hub id ({one_line(error)})") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise UserError(
                f"the hub does not let you write to {repository} (status {status}): log in with "
                "`hf auth login`, with a token that may write there"
            ) from None
        raise UserError(f"the hub refuses {repository} ({one_line(error)})") from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"the hub cannot be reached ({one_line(error)})") from None
