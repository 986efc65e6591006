"""Tags of an MLflow run that name the Flyte execution and task it was opened by."""

from __future__ import annotations

import os
import re
import uuid

from tasks.contracts import on_cluster

EXECUTION = "flyte.execution"
ATTEMPT = "flyte.attempt"
#: In a process that another one started for its work: that one's execution.
STARTED_BY = "SIQVL_STARTED_BY"
#: Of everything that runs in this process, where there is no cluster to give it a name.
LOCAL = f"local-{uuid.uuid4().hex[:12]}"
#: Address of the cluster's console, such as https://flyte.example.org; handed on to pods.
CONSOLE = "SIQVL_FLYTE_CONSOLE"
#: Of a run: which of the recipe's requests its task has; in a pod: the variable that says it.
COMPUTE, KIND = "siqvl.compute", "SIQVL_KIND"
#: Tag -> the variable of a pod that has it.
VARIABLES = {
    "flyte.project": "FLYTE_INTERNAL_EXECUTION_PROJECT",
    "flyte.domain": "FLYTE_INTERNAL_EXECUTION_DOMAIN",
    "flyte.task": "FLYTE_INTERNAL_TASK_NAME",
    "flyte.task_version": "FLYTE_INTERNAL_TASK_VERSION",
    "flyte.image": "FLYTE_INTERNAL_IMAGE",
    COMPUTE: KIND,
}


def flyte_tags() -> dict[str, str]:
    """Return the tags that say which execution this process belongs to, and which attempt."""
    tags = {EXECUTION: execution(), ATTEMPT: str(attempt())}
    if not on_cluster():
        return tags
    found = {tag: os.environ.get(name, "") for tag, name in VARIABLES.items()}
    found["flyte.node"] = node_of(os.environ.get("HOSTNAME", ""))
    if console := os.environ.get(CONSOLE):
        project, domain, name = execution().split("/")
        found["flyte.url"] = (
            f"{console.rstrip('/')}/console/projects/{project}/domains/{domain}/executions/{name}"
        )
    return tags | {tag: value for tag, value in found.items() if value}


def attempt() -> int:
    """Return which attempt at its task this process is, from 0."""
    return int(os.environ.get("FLYTE_ATTEMPT_NUMBER", "0"))


def execution() -> str:
    """Return `project/domain/name` on a cluster; elsewhere a name that this process has alone."""
    if not on_cluster():
        return os.environ.get(STARTED_BY, LOCAL)
    names = ("PROJECT", "DOMAIN", "ID")
    return "/".join(os.environ.get(f"FLYTE_INTERNAL_EXECUTION_{name}", "") for name in names)


def node_of(pod: str) -> str:
    """Return the id of a node in this execution, from the name of its pod or its PyTorchJob, or "".

    Flyte calls a pod `<execution>-<node>-<attempt>`, and the operator adds `-worker-1`.
    """
    _, _, rest = pod.partition(f"{execution().split('/')[-1]}-")
    return re.sub(r"-\d+(-(master|worker)-\d+)?$", "", rest)
