"""The manifest of a served model fits the server and the image that it starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from siqvl.cli.serve import serve
from siqvl.serving.server.api_keys import VARIABLE
from siqvl.serving.server.graceful import LAST_SECONDS
from siqvl.serving.server.observed import PATHS
from siqvl.serving.server.server_settings import ServerSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker" / "serving.yaml").read_text(encoding="utf-8")


@pytest.fixture
def pod() -> dict[str, Any]:
    deployment, _ = yaml.safe_load_all(TEXT)
    return deployment["spec"]["template"]["spec"]


def test_the_service_leads_to_the_pods() -> None:
    deployment, service = yaml.safe_load_all(TEXT)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (port,) = service["spec"]["ports"]
    (own,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert port["targetPort"] == own["name"]
    assert own["containerPort"] == ServerSettings().port
    told = deployment["spec"]["template"]["metadata"]["annotations"]
    assert told["prometheus.io/port"] == f"{own['containerPort']}"
    assert told["prometheus.io/path"] in PATHS


def test_arguments_are_options_of_the_command(pod: dict[str, Any]) -> None:
    _, *options = pod["containers"][0]["args"]
    known = {name for one in serve.params for name in one.opts}
    assert {one for one in options if one.startswith("--")} <= known
    (variable,) = [one for one in pod["containers"][0]["env"] if "valueFrom" in one]
    assert variable["name"] == VARIABLE
    assert not any("key" in one.lower() for one in options)


def test_probes_ask_what_answers(pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in PATHS
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]


def test_running_answers_have_their_time_before_the_pod_is_killed(pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    options = container["args"]
    stop = float(options[options.index("--stop-seconds") + 1])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + stop + 2 * LAST_SECONDS


def test_the_pod_may_do_as_little_as_the_image_allows(pod: dict[str, Any]) -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.MULTILINE)
    (home,) = re.findall(r" HOME=(\S+) \\$", dockerfile, re.MULTILINE)
    assert pod["securityContext"]["runAsUser"] == int(user)
    container = pod["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (mounted,) = container["volumeMounts"]
    assert mounted["mountPath"] == home


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_serves(target: str) -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    name = {"cpu": "serve", "gpu": "serve-gpu"}[target]
    (stage,) = re.findall(rf"^FROM {target} AS {name}\n(.+)$", dockerfile, re.MULTILINE)
    started = re.fullmatch(r'ENTRYPOINT \["python", "-m", "siqvl", "serve", (.+)\]', stage)
    assert started
    assert started[1] == '"--host", "0.0.0.0"'
