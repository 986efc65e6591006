"""The pod of a task: what a recipe tells Kubernetes that Flyte's own arguments have no name for.

Every task has such a template, also where a recipe says nothing of the kind: flytekit computes the
version of what it registers from the code and from `version_hash` of the templates, so that tasks
of one code that ask for other things have other versions, and can be registered side by side.

Flyte takes the template as it is (Propeller 1.16.8, `BuildRawPod`): it lays resources and GPUs of
the node over it, and itself over a PodTemplate of the cluster. What it sets in a pod that it makes
itself and leaves alone in a template is set here: the end of the log as the reason of a failure.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flytekit import PodTemplate
from flytekit.core.context_manager import FlyteEntities

from siqvl.recipe import Recipe
from siqvl.recipe.cluster.pod import GPU, NodeRequirement, Toleration
from siqvl.recipe.compute import Kind

if TYPE_CHECKING:
    from kubernetes.client import V1Affinity, V1Container, V1PodSpec

    from siqvl.recipe.compute import Request

#: Seconds of a pod's grace beyond the recipe's: the signal comes late, the process ends after it.
GRACE_SLACK = 5
KUBERNETES_GRACE = 30  # of pods that nobody gave another
#: In a pod: what was asked of the cluster for it, see `tasks/given.py`.
ASKED = "SIQVL_ASKED"


class TaskPod(PodTemplate):
    """The pods of a kind of task, as a recipe wants them.

    The client of Kubernetes, which takes its time to import, is needed where tasks are registered
    and where a pipeline is planned; in other pods the specification is never made.

    Args:
        kind: of task.
        recipe: which says what its pods are like.
        covers: what else a registered task takes from the environment and the command line.
    """

    def __init__(self, kind: Kind, recipe: Recipe, covers: dict[str, Any]) -> None:
        self.kind, self.request, self.covers = kind, recipe.compute.of(kind), covers
        # Flyte's message of a dead pod names its container, and not the pod
        self.primary_container_name = kind.value
        self.labels = dict(self.request.labels) or None
        self.annotations = dict(self.request.annotations) or None

    @cached_property
    def pod_spec(self) -> V1PodSpec:
        """What Kubernetes is told."""
        from kubernetes import client

        asks = self.request
        return client.V1PodSpec(
            containers=[_container(self.kind, asks)],
            affinity=_affinity(asks),
            node_selector=dict(asks.node_selector) or None,
            tolerations=[_toleration(one) for one in _tolerated(asks)] or None,
            service_account_name=asks.service_account,
            image_pull_secrets=[
                client.V1LocalObjectReference(name=name) for name in asks.image_pull_secrets
            ]
            or None,
            priority_class_name=asks.priority_class,
            termination_grace_period_seconds=grace(asks)
            if grace(asks) != KUBERNETES_GRACE
            else None,
        )

    def version_hash(self) -> str:
        """A hash of all that a registered task takes from recipe, environment and command line."""
        content = [self.kind, self.request.model_dump(mode="json"), self.covers]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan_pods(recipe: Recipe) -> None:
    """Have all tasks that this process knows run in pods as a recipe wants them.

    For who plans a pipeline: tasks were declared before its recipe was known. flytekit can override
    the template of a node, too (`with_overrides`), but not `pod_template_name`, and a dynamic task
    then loses what it plans with (flytekit 1.16.31 writes the override without the serialization
    context).
    """
    for entity in FlyteEntities.entities:
        template = getattr(entity, "pod_template", None)
        if isinstance(template, TaskPod):
            entity.pod_template = TaskPod(template.kind, recipe, template.covers)
            entity.metadata.pod_template_name = entity.pod_template.request.pod_template_name


def grace(request: Request) -> int:
    """Return a pod's `terminationGracePeriodSeconds`: what it may take, and to see that it has."""
    return request.grace_seconds + GRACE_SLACK


def _other_grace(request: Request) -> int | None:
    seconds = grace(request)
    return None if seconds == KUBERNETES_GRACE else seconds


def asked_of(request: Request) -> dict[str, Any]:
    """What a pod is to compare with what it was given."""
    return {"cpus": request.cpus, "memory": request.memory, "gpus": request.gpus}


def _container(kind: Kind, asks: Request) -> V1Container:
    """The container that flytekit fills in with image, command, environment and resources."""
    from kubernetes.client import V1Container, V1EnvVar, V1ResourceRequirements

    others = {name: str(count) for name, count in asks.extended_resources.items()}

    class Primary(V1Container):
        """flytekit replaces its resources by those that it has names for; others stay."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "resources":
                limits = {**(getattr(value, "limits", None) or {}), **others}
                requests = {**(getattr(value, "requests", None) or {}), **others}
                value = V1ResourceRequirements(limits=limits, requests=requests)
            super().__setattr__(name, value)

    variables = {**asks.environment, ASKED: json.dumps(asked_of(asks))}
    return Primary(
        name=kind.value,
        env=[V1EnvVar(name=name, value=value) for name, value in variables.items()],
        image_pull_policy=asks.image_pull_policy,
        termination_message_policy="FallbackToLogsOnError",
    )


def _affinity(asks: Request) -> V1Affinity | None:
    """What has to hold of the labels of nodes; the type of GPU where its label is named."""
    from kubernetes import client

    required = list(asks.node_affinity)
    if asks.gpu_label:
        required.append(NodeRequirement(key=asks.gpu_label, values=[asks.gpu_type or ""]))
    if not required:
        return None
    expressions = [
        client.V1NodeSelectorRequirement(
            key=one.key, operator=one.operator, values=one.values or None
        )
        for one in required
    ]
    term = client.V1NodeSelectorTerm(match_expressions=expressions)
    return client.V1Affinity(
        node_affinity=client.V1NodeAffinity(
            required_during_scheduling_ignored_during_execution=client.V1NodeSelector(
                node_selector_terms=[term]
            )
        )
    )


def _tolerated(asks: Request) -> list[Toleration]:
    """Taints as the recipe has them, and those by which clusters keep others off their GPUs."""
    of_gpus = [Toleration(key=GPU, operator="Exists", effect="NoSchedule")] if asks.gpus else []
    if asks.gpu_label:
        of_gpus.append(
            Toleration(key=asks.gpu_label, value=asks.gpu_type or "", effect="NoSchedule")
        )
    return [*asks.tolerations, *(one for one in of_gpus if one not in asks.tolerations)]


def _toleration(one: Toleration) -> Any:
    from kubernetes.client import V1Toleration

    return V1Toleration(
        key=one.key,
        operator=one.operator,
        value=one.value or None,
        effect=one.effect,
        toleration_seconds=one.seconds,
    )
