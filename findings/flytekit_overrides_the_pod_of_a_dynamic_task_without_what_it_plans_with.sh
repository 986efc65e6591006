#!/usr/bin/env bash
# flytekit 1.16.31: `with_overrides(pod_template=…)` breaks fast-registered tasks: the template runs the fast entrypoint
# twice, and a dynamic task loses what it plans with.
#
# FlytePropeller 1.16 takes the pod of an override in place of the task's own, so flytekit writes a whole pod into the node:
# image, arguments, environment, resources. What it writes is not what it writes into a task:
# - A dynamic task finds images and the address of its code in the variable `_F_SS_C`. It stands in the task's template and
#   not in the pod of the override, so the pod of a dynamic task that is overridden cannot plan.
# - To write the arguments, flytekit leaves its command for fast registration set at the task, whose own template then has
#   it twice: `pyflyte-fast-execute … -- pyflyte-fast-execute … -- pyflyte-execute …`. Nodes of the task without an override
#   run that, and unpack their code twice.
# One would guess that an override of labels or tolerations leaves the rest of a task as it is. What is left is a pod
# template of the task itself (`@task(pod_template=…)`), with which both are right.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64:
#
#   task plain: fast entrypoint 2 times
#   node of plain, overridden: fast entrypoint 1 times
#   task planned: fast entrypoint 2 times, knows what to plan with: True
#   node of planned, overridden: fast entrypoint 1 times, knows what to plan with: False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flytekit==1.16.31 kubernetes==37.0.1

cat > flow.py <<'PYTHON'
import logging
from collections import OrderedDict

from flytekit import PodTemplate, dynamic, task, workflow
from flytekit.configuration import (
    FastSerializationSettings,
    Image,
    ImageConfig,
    SerializationSettings,
)
from flytekit.tools.translator import get_serializable
from kubernetes.client import V1PodSpec

logging.disable(logging.CRITICAL)
POD = PodTemplate(pod_spec=V1PodSpec(containers=[], service_account_name="trainer"))


@task
def plain(a: int) -> int:
    return a


@dynamic
def planned(a: int) -> int:
    return plain(a=a)


@workflow
def flow(a: int = 1) -> int:
    b = plain(a=a).with_overrides(pod_template=POD)
    c = plain(a=b)
    return planned(a=c).with_overrides(pod_template=POD)


if __name__ == "__main__":
    settings = SerializationSettings(
        image_config=ImageConfig(Image("default", "registry/image", "1"), []),
        project="project",
        domain="development",
        version="1",
        fast_serialization_settings=FastSerializationSettings(
            enabled=True, destination_dir=".", distribution_location="s3://bucket/code.tar.gz"
        ),
    )
    entities = OrderedDict()
    plan = get_serializable(entities, settings, flow)

    def say(what, name, arguments, variables):
        line = f"{what}: fast entrypoint {arguments.count('pyflyte-fast-execute')} times"
        knows = f", knows what to plan with: {'_F_SS_C' in variables}" if name == "planned" else ""
        print(line + knows)

    nodes = {node.task_node.reference_id.name: node for node in plan.template.nodes
             if node.task_node.overrides.pod_template}
    for entity in (plain, planned):
        template = entities[entity].template
        name = template.id.name.rpartition(".")[2]
        say(f"task {name}", name, template.container.args, template.container.env or {})
        (container,) = nodes[template.id.name].task_node.overrides.pod_template.pod_spec["containers"]
        variables = {one["name"] for one in container.get("env", [])}
        say(f"node of {name}, overridden", name, container["args"], variables)
PYTHON
venv/bin/python flow.py | tee seen.txt
diff - seen.txt <<'EXPECTED'
task plain: fast entrypoint 2 times
node of plain, overridden: fast entrypoint 1 times
task planned: fast entrypoint 2 times, knows what to plan with: True
node of planned, overridden: fast entrypoint 1 times, knows what to plan with: False
EXPECTED
