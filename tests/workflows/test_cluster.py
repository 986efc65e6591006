"""pyflyte on the way to a cluster: what is missing is one line, and nothing else is in its way."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.cluster import _address

RUN = ("run", "--remote", "workflows/full_pipeline.py", "full_pipeline")
REGISTER = ("register", "--version", "v1", "-p", "siqvl", "-d", "development", "workflows")
COMMANDS = pytest.mark.parametrize("command", [RUN, REGISTER], ids=["run", "register"])


def said(printed: str) -> str:
    """The text of the error panel, which has to be all there is of it."""
    assert "Traceback" not in printed
    assert printed.count("─ Error ─") == 1
    return " ".join(re.findall(r"│\s*(.*?)\s*│", printed))


def config(folder: Path, endpoint: str, *images: str) -> str:
    """A configuration file in the folder; its name."""
    named = "".join(f"{image} = registry.example.org/siqvl:{image}\n" for image in images)
    text = f"[platform]\nurl = dns:///{endpoint}\ninsecure = True\n\n[images]\n{named}"
    (folder / "made.config").write_text(text)
    return "made.config"


@pytest.fixture
def listening() -> Iterator[str]:
    """Something that takes connections on this machine, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.integration
@COMMANDS
def test_without_a_configured_cluster(pyflyte, checkout: Path, command: tuple[str, ...]) -> None:
    message = said(pyflyte(*command, folder=checkout, code=1))
    assert message.startswith("no Flyte cluster is configured: name one with `pyflyte -c flyte.con")


@pytest.mark.integration
@COMMANDS
def test_where_nobody_answers(
    pyflyte, checkout: Path, command: tuple[str, ...], nobody: str
) -> None:
    file = config(checkout, nobody, "data", "training", "evaluation")
    message = said(pyflyte("-c", file, *command, folder=checkout, code=1))
    assert f"no Flyte cluster answers at {nobody} (Connection refused): " in message


@pytest.mark.integration
@COMMANDS
def test_an_image_that_is_not_named(
    pyflyte, checkout: Path, command: tuple[str, ...], listening: str
) -> None:
    file = config(checkout, listening, "data")
    message = said(pyflyte("-c", file, *command, folder=checkout, code=1))
    assert message.startswith(
        "no image is named for evaluation, training: add `evaluation = registry/name:tag` under "
        "[images] in flyte.config, or give --image evaluation=registry/name:tag"
    )


@pytest.mark.integration
@COMMANDS
def test_an_image_may_be_named_on_the_command_line(
    pyflyte, checkout: Path, command: tuple[str, ...], listening: str
) -> None:
    file = config(checkout, listening, "data")
    images = ["--image", "training=registry.example.org/siqvl:t"]
    first, *rest = command
    message = said(pyflyte("-c", file, first, *images, *rest, folder=checkout, code=1))
    assert message.startswith("no image is named for evaluation: ")


@pytest.mark.integration
def test_help_needs_no_cluster(pyflyte, checkout: Path) -> None:
    assert "--recipe" in pyflyte(*RUN, "--help", folder=checkout)
    assert "--dry-run" in pyflyte("register", "--help", folder=checkout)


@pytest.mark.integration
def test_a_file_without_a_name_lists_what_there_is(pyflyte, checkout: Path, listening: str) -> None:
    file = config(checkout, listening, "data", "training", "evaluation")
    printed = pyflyte("-c", file, *RUN[:-1], folder=checkout, code=2)
    assert re.search(r"│ full_pipeline  workflow", printed)
    told = " ".join(re.findall(r"│\s*(.*?)\s*│", printed))
    assert "`pyflyte run workflows/full_pipeline.py full_pipeline --recipe" in told


@pytest.mark.integration
def test_a_dry_run_needs_none_if_it_uploads_nothing(pyflyte, checkout: Path) -> None:
    """That with `--copy none` it does not is in `test_registration.py`."""
    file = config(checkout, "127.0.0.1:1", "data", "training", "evaluation")
    first, *rest = REGISTER
    message = said(pyflyte("-c", file, first, "--dry-run", *rest, folder=checkout, code=1))
    assert message.startswith("no Flyte cluster answers at 127.0.0.1:1 ")


@pytest.mark.integration
def test_a_run_on_this_machine_needs_none(pyflyte, checkout: Path) -> None:
    given = ["--checkpoint", "recipes", "--data", "recipes"]
    printed = pyflyte("run", "tasks/vqa_sft.py", "vqa_sft", *given, folder=checkout, code=1)
    assert "is no SiQ-VL checkpoint" in said(printed)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("dns:///localhost:30080", ("localhost", 30080)),
        ("localhost:30080", ("localhost", 30080)),
        ("dns:///flyte.example.org", ("flyte.example.org", 443)),
        ("flyte.example.org", ("flyte.example.org", 443)),
        ("https://flyte.example.org", ("flyte.example.org", 443)),
        ("https://flyte.example.org:8443/console", ("flyte.example.org", 8443)),
        ("https://flyte.example.org/console", ("flyte.example.org", 443)),
        ("dns:///10.0.0.7:81", ("10.0.0.7", 81)),
        ("dns:///[::1]:30080", ("::1", 30080)),
        ("[fe80::1]", ("fe80::1", 443)),
    ],
)
def test_addresses_are_read_as_flyte_writes_them(endpoint: str, expected: tuple[str, int]) -> None:
    assert _address(endpoint) == expected
