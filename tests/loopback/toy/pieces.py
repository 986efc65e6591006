"""What the toy's workflows are made of."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from flytekit import Cache, HashMethod, Secret, current_context, task
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.directory import FlyteDirectory
from pydantic import BaseModel, ConfigDict

IMAGE = "{{.image.toy.fqn}}:{{.image.toy.version}}"


class Settings(BaseModel):
    """What a folder is written by; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: int = 2
    word: str = "a"


def content_of(folder: FlyteDirectory) -> str:
    """A folder is the same when its files are, wherever it lies."""
    files = sorted(Path(folder.path).iterdir())
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


Folder = Annotated[FlyteDirectory, HashMethod(content_of)]


@task(container_image=IMAGE)
def written(settings: Settings) -> Folder:
    """Files of growing length; never cached, so each run writes to a new address."""
    out = Path(current_context().working_directory) / "out"
    out.mkdir()
    for index in range(settings.files):
        (out / f"{index}.txt").write_text(settings.word * (index + 1))
    return FlyteDirectory(str(out))


@task(container_image=IMAGE, cache=Cache(version="1", ignored_inputs=("label",)))
def counted(folder: FlyteDirectory, factor: int, label: str) -> int:
    """Characters in a folder; known again by the folder's content."""
    return factor * sum(len(file.read_text()) for file in Path(folder.download()).iterdir())


@task(container_image=IMAGE, cache=Cache(version="1"))
def gathered(folders: list[FlyteDirectory], counts: list[int]) -> int:
    """The same for a list of folders."""
    return len(folders) + sum(counts)


@task(container_image=IMAGE, cache=Cache(version="1"), retries=1)
def scaled(count: int, by: list[int]) -> int:
    """One element of a map; `by` is the same for all."""
    return count * sum(by)


@task(container_image=IMAGE, retries=2)
def trained(steps: int) -> int:
    """Goes on where it was killed: the first attempt saves a step and waits for that."""
    checkpoint = current_context().checkpoint
    try:
        done = int(checkpoint.read() or b"0")
    except Exception:  # no attempt before this one, or one that saved nothing
        done = 0
    if done == 0:
        checkpoint.write(b"1")
        time.sleep(120)
    return 100 * done + steps


@task(container_image=IMAGE, retries=2)
def flaky() -> int:
    """Fails once, in a way that may be tried again."""
    attempt = int(os.environ["FLYTE_ATTEMPT_NUMBER"])
    if attempt == 0:
        raise FlyteRecoverableException("try again")
    return attempt


@task(container_image=IMAGE, retries=2)
def broken(count: int) -> int:
    """Fails for good: an error of the user is not tried again."""
    if count:
        raise ValueError(f"no luck with {count}")
    return count


@task(container_image=IMAGE, timeout=timedelta(minutes=5))
def slow() -> int:
    time.sleep(120)
    return 0


@task(container_image=IMAGE, retries=2)
def lost(seconds: int = 120) -> int:
    """Waits for what becomes of its pod, and says which attempt it was."""
    print("waiting", flush=True)
    time.sleep(seconds)
    return int(os.environ["FLYTE_ATTEMPT_NUMBER"])


@task(container_image=IMAGE, retries=2)
def lost_element(index: int) -> int:
    """The element 1 of a map waits, others are done at once."""
    if index == 1:
        time.sleep(120)
    return index


@task(
    container_image=IMAGE,
    environment={"OF_THE_TASK": "1"},
    secret_requests=[
        Secret(group="toy", key="token", mount_requirement=Secret.MountType.ENV_VAR),
        Secret(
            group="toy", key="plain", mount_requirement=Secret.MountType.ENV_VAR, env_var="PLAIN"
        ),
        Secret(group="toy", key="file", mount_requirement=Secret.MountType.FILE),
    ],
)
def surroundings() -> dict[str, str]:
    """What a pod finds: variables, files, secrets."""
    secrets = current_context().secrets
    found = dict(os.environ)
    found["files"] = " ".join(sorted(os.listdir(".")))
    found["at home"] = " ".join(os.listdir(os.environ["HOME"]))
    found["secrets"] = " ".join(
        (secrets.get("toy", "token"), secrets.get("toy", "plain"), secrets.get("toy", "file"))
    )
    return found


@task(
    container_image=IMAGE,
    secret_requests=[Secret(group="toy", key="unknown")],
)
def secretive() -> int:
    return 0
