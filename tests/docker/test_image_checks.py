"""The image script's own parts: what it would find, and what it reads from the machine."""

import pytest

from tests.integration.image_checks.facts import Entry, configuration_facts, file_facts
from tests.integration.image_checks.standin import mirror_in, pip_settings

CLEAN = [
    Entry("tmp", 0o1777, 0, "folder"),
    Entry("usr/bin/python3.11", 0o755, 0, "file"),
    Entry("usr/bin/python3", 0o777, 0, "other"),
    Entry("root/siqvl/version.py", 0o644, 1000, "file"),
    Entry("etc/ssl/certs/ca-certificates.pem", 0o644, 0, "file"),
    Entry("opt/venv/lib/python3.11/site-packages/torch/__init__.py", 0o644, 0, "file"),
    Entry("opt/venv/lib/python3.11/site-packages/pipes/__init__.py", 0o644, 0, "file"),
]
SITE = "opt/venv/lib/python3.11/site-packages"


def failed(*entries: Entry) -> list[str]:
    return [fact.what for fact in file_facts([*CLEAN, *entries]) if fact.ok is False]


def test_a_clean_image_passes() -> None:
    assert failed() == []


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("usr/bin/gcc", "compilers and build tools"),
        ("usr/bin/x86_64-linux-gnu-g++-12", "compilers and build tools"),
        ("usr/bin/make", "compilers and build tools"),
        (f"{SITE}/pip/__init__.py", "pip, setuptools, wheel in the venv"),
        (f"{SITE}/setuptools-84.2.1.dist-info/METADATA", "pip, setuptools, wheel in the venv"),
        ("opt/venv/bin/pip3", "pip, setuptools, wheel in the venv"),
        ("tmp/.cache/pip/x", "caches of pip and apt"),
        ("root/siqvl/__pycache__/a.cpython-311.pyc", "bytecode beside the code"),
        ("root/.git/config", ".git, tests, docs, docker files"),
        ("root/tests/conftest.py", ".git, tests, docs, docker files"),
        ("root/.env", "files that hold secrets"),
        ("root/.ssh/known_hosts", "files that hold secrets"),
        ("root/mlflow.db", "files that hold secrets"),
        ("etc/pip.conf", "files that hold secrets"),
        ("root/server.key", "keys and certificates"),
    ],
)
def test_what_must_not_be_there_is_found(path: str, what: str) -> None:
    assert failed(Entry(path, 0o644, 0, "file")) == [what]


def test_modes_and_owners_are_judged() -> None:
    assert failed(Entry("usr/bin/su", 0o4755, 0, "file")) == ["setuid and setgid programs"]
    assert failed(Entry("srv", 0o777, 0, "folder")) == ["world-writable paths"]
    assert failed(Entry("opt/x", 0o644, 1000, "file")) == ["files of the user outside /root"]


def test_configuration_is_judged() -> None:
    config = {"User": "", "Env": ["HF_TOKEN=x", "GPG_KEY=x"], "Healthcheck": {"Test": ["NONE"]}}
    facts = configuration_facts({"Config": config}, "abc")
    bad = {fact.what: fact.value for fact in facts if fact.ok is False}
    assert bad["secret-like variables"] == "HF_TOKEN"
    assert bad.keys() >= {"user", "health check", "labels missing", "revision"}


def test_settings_of_pip_that_hold_elsewhere() -> None:
    listed = (
        ":env:.cert='/etc/ssl/own.pem'\n"
        "global.index-url='https://pypi.example.org/simple'\n"
        "global.extra-index-url='file:///mirror https://more.example.org'\n"
        "global.constraint='/etc/constraints.txt'\n"
    )
    assert pip_settings(listed) == {
        "index-url": "https://pypi.example.org/simple",
        "extra-index-url": "https://more.example.org",
        "cert": "/etc/ssl/own.pem",
    }


@pytest.mark.parametrize(
    ("text", "mirror"),
    [
        ("deb [arch=amd64] http://a.example bookworm main\n", "http://a.example"),
        (
            "Types: deb\nURIs: http://b.example\nSuites: bookworm bookworm-updates\n",
            "http://b.example",
        ),
        ("Types: deb\nURIs: http://c.example\nSuites: bookworm-security\n", None),
        ("deb http://d.example bookworm-updates main\n", None),
    ],
)
def test_the_mirror_of_the_suite(text: str, mirror: str | None) -> None:
    assert mirror_in([text]) == mirror
