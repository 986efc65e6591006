"""Any training stage in several processes, by torch elastic and Flyte's plugin for it.

pyflyte run tasks/elastic_training.py elastic_training --stage vqa_sft --checkpoint DIR --data DIR \
    --recipe RECIPE

On one machine the processes run in a plain pod; several machines are a PyTorchJob of Kubeflow's
training operator. How many there are is said by `distributed` in the recipe of each call, and for a
task that runs alone by that of the recipe it is registered for. This module imports torch: the
pipeline imports it where a recipe asks for several processes.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any
from unittest.mock import patch

from flytekit import task
from flytekit.exceptions.user import FlyteUserRuntimeException
from flytekit.extend import IgnoreOutputs, TaskPlugins
from flytekitplugins.kfpytorch import CleanPodPolicy, Elastic, RunPolicy
from flytekitplugins.kfpytorch.task import PytorchElasticFunctionTask
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher import api as launcher

from siqvl.errors import UserError
from siqvl.recipe import Distributed, Recipe, Stage
from siqvl.stages import STAGES
from siqvl.tracking.runs import end_open
from siqvl.training.loop.launch import SIGNALS_OF_TORCH
from siqvl.training.loop.stop_request import TERMINATED, Stopped, heeding
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData, local
from tasks.decks import live, live_page
from tasks.flyte_tags import ATTEMPT, EXECUTION, STARTED_BY, attempt, execution
from tasks.given import check_given
from tasks.machines import check_machines, not_met, reason, stay_until_delivered
from tasks.preemption import grace
from tasks.resources import registered_recipe
from tasks.stopping import stop, stoppable
from tasks.time_limit import time_was_over
from tasks.training import run_name, train, trained_control, training_policy


class ByRecipe(Elastic):
    """Elastic with as many processes as the recipe says."""


class ElasticByRecipe(PytorchElasticFunctionTask):
    """Flyte decides on the number of processes when a module is imported; here each call does."""

    def shaped(self, distributed: Distributed) -> ElasticByRecipe:
        """This task, for so many processes and machines."""
        nodes = distributed.nodes
        processes = distributed.processes if distributed.enabled else 1
        self._task_config = _elastic(nodes, processes)
        self.min_nodes = self.max_nodes = nodes
        self._task_type = (
            self._ELASTIC_TASK_TYPE_STANDALONE if nodes == 1 else self._ELASTIC_TASK_TYPE
        )
        return self

    def execute(self, **inputs: Any) -> Any:
        """Train; what a process of it has to say to the user is what this one says.

        Raises:
            UserError: a process failed, or there are not as many machines as the recipe says.
            FlyteRecoverableException: in a pod, a process was lost; another attempt goes on.
        """
        check_given()
        distributed = inputs["recipe"].distributed
        self.shaped(distributed)
        check_machines(distributed)
        try:
            return self._trained(**inputs)
        except IgnoreOutputs:
            stay_until_delivered()
            raise

    def _trained(self, **inputs: Any) -> Any:
        recipe = inputs["recipe"]
        os.environ[STARTED_BY] = execution()
        name = run_name(inputs["stage"], trained_control(inputs["stage"], recipe))
        # of this attempt alone: the next one may have begun while this one is told to end
        of_stage = {
            EXECUTION: execution(),
            ATTEMPT: str(attempt()),
            "mlflow.runName": name,
        }
        # the plugin has no option for it
        config = partial(launcher.LaunchConfig, signals_to_handle=SIGNALS_OF_TORCH)
        # torch stops the others, the one that tracks among them, as they are
        page = live(STAGES[inputs["stage"]].title, live_page(recipe, inputs["run"], name))
        with stoppable(), page, patch.object(launcher, "LaunchConfig", config):
            try:
                for directory in (inputs["data"], inputs.get("checkpoint")):
                    local(directory)  # once for all processes, which would write the same files
                with heeding(grace(recipe), by_processes=True):
                    return super().execute(**inputs)
            except FlyteUserRuntimeException as error:
                if isinstance(error.value, ChildFailedError):
                    failures = error.value.failures.values()
                    over = time_was_over(one.message for one in failures)
                    # with those of a machine that was told to end
                    if TERMINATED in {one.exitcode for one in failures} and over is None:
                        stop(signal.SIGTERM)
                    found = UserError(over) if over else reason(error.value, recipe.distributed)
                    end_open(recipe, of_stage, "FAILED", str(found))
                    raise found from error.value
                raise
            except (RendezvousError, DistError) as error:
                lost = not_met(error, recipe.distributed)
                end_open(recipe, of_stage, "FAILED", str(lost))
                raise lost from error
            except Stopped:
                end_open(recipe, of_stage, "KILLED")
                raise
            finally:
                del os.environ[STARTED_BY]


TaskPlugins.register_pythontask_plugin(ByRecipe, ElasticByRecipe)


def _elastic(nodes: int, processes: int) -> ByRecipe:
    return ByRecipe(
        nnodes=nodes,
        nproc_per_node=processes,
        # It is asked for as of any other task; the plugin's own way needs a pod template.
        increase_shared_mem=False,
        # By the operator's default the workers of a failed job that are left run on, with GPUs.
        run_policy=RunPolicy(clean_pod_policy=CleanPodPolicy.RUNNING),
    )


def _registered() -> ByRecipe:
    distributed = registered_recipe().distributed
    return _elastic(distributed.nodes, distributed.processes if distributed.enabled else 1)


@task(task_config=_registered(), **training_policy())
def elastic_training(
    stage: Stage,
    data: PreparedData,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> Checkpoint:
    """Train a stage on prepared rows, continuing from the stage before."""
    return train(stage, recipe, run, data, checkpoint)
