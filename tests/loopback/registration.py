"""FlyteAdmin's half that keeps what clients register."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from flyteidl.admin import common_pb2, launch_plan_pb2, task_pb2, workflow_pb2
from flyteidl.service import admin_pb2_grpc

from . import views
from .limits import TooMuch, check_limits
from .registry import AlreadyExists, Different, Invalid, NotFound, Registry, Shelf, key_of

CODES = {
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Different: grpc.StatusCode.INVALID_ARGUMENT,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    TooMuch: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
}


@contextmanager
def answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn what the registry and the engine say into gRPC's status codes."""
    try:
        yield
    except tuple(CODES) as error:
        context.abort(CODES[type(error)], str(error))


class Registration(admin_pb2_grpc.AdminServiceServicer):
    """Tasks, workflows and launch plans: create, get, list, activate."""

    _registry: Registry

    def CreateTask(self, request: Any, context: Any) -> task_pb2.TaskCreateResponse:
        with answering(context):
            check_limits(request.spec.template, self._registry.limits)
            self._registry.tasks.add(request.id, request.spec)
        return task_pb2.TaskCreateResponse()

    def GetTask(self, request: Any, context: Any) -> task_pb2.Task:
        with answering(context):
            spec = self._registry.tasks.get(request.id)
        return views.task_view(spec, self._registry.tasks.created[key_of(request.id)])

    def ListTasks(self, request: Any, context: Any) -> task_pb2.TaskList:
        found = [
            views.task_view(spec, self._registry.tasks.created[key])
            for key, spec in _asked(self._registry.tasks, request)
        ]
        return task_pb2.TaskList(tasks=found)

    def ListTaskIds(self, request: Any, context: Any) -> Any:
        return _names(self._registry.tasks, request)

    def CreateWorkflow(self, request: Any, context: Any) -> workflow_pb2.WorkflowCreateResponse:
        with answering(context):
            spec = request.spec
            self._registry.closure_of(spec.template, list(spec.sub_workflows))
            self._registry.workflows.add(request.id, spec)
        return workflow_pb2.WorkflowCreateResponse()

    def GetWorkflow(self, request: Any, context: Any) -> workflow_pb2.Workflow:
        with answering(context):
            closure = self._registry.closure(request.id)
        return views.workflow_view(closure, self._registry.workflows.created[key_of(request.id)])

    def ListWorkflows(self, request: Any, context: Any) -> workflow_pb2.WorkflowList:
        shelf = self._registry.workflows
        found = [
            views.workflow_view(self._registry.closure(shelf.specs[key][0]), shelf.created[key])
            for key, _ in _asked(shelf, request)
        ]
        return workflow_pb2.WorkflowList(workflows=found)

    def ListWorkflowIds(self, request: Any, context: Any) -> Any:
        return _names(self._registry.workflows, request)

    def CreateLaunchPlan(
        self, request: Any, context: Any
    ) -> launch_plan_pb2.LaunchPlanCreateResponse:
        with answering(context):
            self._registry.expected_inputs(request.spec)  # its workflow has to be there
            self._registry.launch_plans.add(request.id, request.spec)
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def GetLaunchPlan(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlan:
        with answering(context):
            self._registry.launch_plans.get(request.id)
        return views.launch_plan_view(self._registry, key_of(request.id))

    def GetActiveLaunchPlan(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlan:
        id = request.id
        with answering(context):
            key = self._registry.active.get((id.project, id.domain, id.name))
            if key is None:
                raise NotFound(f"no version of launch plan {id.name} is active")
        return views.launch_plan_view(self._registry, key)

    def ListActiveLaunchPlans(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlanList:
        found = [
            views.launch_plan_view(self._registry, key)
            for key in self._registry.active.values()
            if key[:2] == (request.project, request.domain)
        ]
        return launch_plan_pb2.LaunchPlanList(launch_plans=found)

    def ListLaunchPlans(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlanList:
        found = [
            views.launch_plan_view(self._registry, key)
            for key, _ in _asked(self._registry.launch_plans, request)
        ]
        return launch_plan_pb2.LaunchPlanList(launch_plans=found)

    def ListLaunchPlanIds(self, request: Any, context: Any) -> Any:
        return _names(self._registry.launch_plans, request)

    def UpdateLaunchPlan(
        self, request: Any, context: Any
    ) -> launch_plan_pb2.LaunchPlanUpdateResponse:
        with answering(context):
            if request.state == launch_plan_pb2.ACTIVE:
                self._registry.activate(request.id)
            else:
                self._registry.deactivate(request.id)
        return launch_plan_pb2.LaunchPlanUpdateResponse()


def _asked(shelf: Shelf[Any], request: Any) -> Iterator[tuple[Any, Any]]:
    """Versions of one name, newest first, as many as were asked for."""
    id = request.id
    for index, found in enumerate(shelf.versions(id.project, id.domain, id.name)):
        if request.limit and index >= request.limit:
            return
        yield found


def _names(shelf: Shelf[Any], request: Any) -> common_pb2.NamedEntityIdentifierList:
    names = dict.fromkeys(key[2] for key, _ in shelf.versions(request.project, request.domain))
    entities = [
        common_pb2.NamedEntityIdentifier(project=request.project, domain=request.domain, name=name)
        for name in names
    ]
    return common_pb2.NamedEntityIdentifierList(entities=entities)
