"""A pipeline that recovers another one goes on in its run, and says so on it.

Flyte does not run `open_run` again when it had succeeded: the run that it opened is handed to tasks
of another execution.
"""

from __future__ import annotations

import logging
import os

from siqvl.errors import UserError, one_line
from siqvl.recipe import Recipe
from siqvl.tracking.runs import take_over
from tasks.contracts import PipelineRun, on_cluster
from tasks.flyte_tags import EXECUTION, execution, flyte_tags

logger = logging.getLogger(__name__)

#: Tag of a pipeline's run: the executions that worked on it before, as words.
EARLIER = "flyte.earlier_executions"
TAKEN = (EXECUTION, "flyte.project", "flyte.domain", "flyte.url")
#: In the name of the workflow that Flyte makes for a task that is run alone.
ALONE = ".flytegen."


def take_over_run(recipe: Recipe, run: PipelineRun) -> None:
    """Put this execution on the pipeline's run where that is of an earlier one.

    Its `siqvl.error` goes, and its status is that of this execution. A task that is run alone with
    the run of a pipeline leaves that as it is.
    """
    alone = ALONE in os.environ.get("FLYTE_INTERNAL_EXECUTION_WORKFLOW", "")
    if not on_cluster() or run.parent is None or alone:
        return
    tags = {name: value for name, value in flyte_tags().items() if name in TAKEN}
    try:
        before = take_over(recipe, run.parent, tags, by=EXECUTION, earlier=EARLIER)
    except UserError as error:
        logger.warning("the pipeline's run may name another execution: %s", one_line(error))
        return
    if before is not None:
        print(f"execution {execution()} goes on in the MLflow run of {before}")
