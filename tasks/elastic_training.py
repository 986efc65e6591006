"""Any training stage in several processes, by torch elastic and Flyte's plugin for it.

pyflyte run tasks/elastic_training.py elastic_training --stage vqa_sft --checkpoint DIR --data DIR \
    --recipe RECIPE

On one machine the processes run in a plain pod; several machines are a PyTorchJob of Kubeflow's
training operator. How many there are is said by `distributed` in the recipe of each call. This
module imports torch: the pipeline imports it where a recipe asks for several processes.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any
from unittest.mock import patch

from flytekit import task
from flytekit.exceptions.user import FlyteUserRuntimeException
from flytekit.extend import TaskPlugins
from flytekitplugins.kfpytorch import Elastic
from flytekitplugins.kfpytorch.task import PytorchElasticFunctionTask
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api as launcher

from siqvl.errors import UserError
from siqvl.recipe import Distributed, Recipe, Stage
from siqvl.stages import STAGES
from siqvl.tracking.runs import end_open
from siqvl.training.loop.launch import SIGNALS_OF_TORCH, failure_of
from siqvl.training.loop.stop_request import TERMINATED, Stopped, heeding
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.decks import live, live_page
from tasks.flyte_tags import ATTEMPT, EXECUTION, STARTED_BY, attempt, execution
from tasks.given import check_given
from tasks.preemption import grace
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
            UserError: a process failed.
        """
        check_given()
        recipe = inputs["recipe"]
        self.shaped(recipe.distributed)
        os.environ[STARTED_BY] = execution()
        name = run_name(inputs["stage"], trained_control(inputs["stage"], recipe))
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
                with heeding(grace(recipe), by_processes=True):
                    return super().execute(**inputs)
            except FlyteUserRuntimeException as error:
                if isinstance(error.value, ChildFailedError):
                    failures = error.value.failures.values()
                    over = time_was_over(one.message for one in failures)
                    codes = {one.exitcode for one in failures}
                    # with those of a machine that was told to end
                    if TERMINATED in codes and over is None:
                        stop(signal.SIGTERM)
                    reason = over or failure_of(error.value)
                    end_open(recipe, of_stage, "FAILED", reason)
                    raise UserError(reason) from error.value
                raise
            except Stopped:
                end_open(recipe, of_stage, "KILLED")
                raise
            finally:
                del os.environ[STARTED_BY]


TaskPlugins.register_pythontask_plugin(ByRecipe, ElasticByRecipe)


def _elastic(nodes: int, processes: int) -> ByRecipe:
    # Shared memory is asked for as of any other task; the plugin's own way needs a pod template.
    return ByRecipe(nnodes=nodes, nproc_per_node=processes, increase_shared_mem=False)


@task(task_config=_elastic(1, 1), **training_policy())
def elastic_training(
    stage: Stage,
    data: PreparedData,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> Checkpoint:
    """Train a stage on prepared rows, continuing from the stage before."""
    return train(stage, recipe, run, data, checkpoint)
