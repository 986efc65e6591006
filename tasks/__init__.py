"""Flyte tasks: a file for each step, thin typed shells around `siqvl`."""

import os
import warnings

from tasks.pod_log import keep_clear

if os.environ.get("FLYTE_INTERNAL_EXECUTION_ID"):
    keep_clear()  # first: what goes wrong from here on is logged

import tasks.pod_start  # before a task is made into its arguments
import tasks.recipe_type  # before any task is declared
from tasks.cluster import check_cluster

if "FLYTE_INTERNAL_EXECUTION_ID" not in os.environ:  # in a pod nobody types
    import tasks.changed_recipe  # noqa: F401  # before `pyflyte` makes a task's command

# flytekit's cache of local runs outlives the folders they write to: a hit would hand out a path
# where nothing is any more. It is asked for each call, so a user's own setting counts.
os.environ.setdefault("FLYTE_LOCAL_CACHE_ENABLED", "false")
check_cluster()
# flytekit names a flag twice (`--fresh,--fresh/--no_fresh`), and click says so several times.
warnings.filterwarnings("ignore", "The parameter --fresh is used more than once", UserWarning)
