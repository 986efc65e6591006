"""Flyte tasks: a file for each step, thin typed shells around `siqvl`."""

import os
import warnings

import tasks.changed_recipe  # before `pyflyte` makes a task's command
import tasks.recipe_type  # noqa: F401  # before any task is declared
from tasks.cluster import check_cluster
from tasks.pod_log import keep_clear

# flytekit's cache of local runs outlives the folders they write to: a hit would hand out a path
# where nothing is any more. It is asked for each call, so a user's own setting counts.
os.environ.setdefault("FLYTE_LOCAL_CACHE_ENABLED", "false")
check_cluster()
if os.environ.get("FLYTE_INTERNAL_EXECUTION_ID"):
    keep_clear()
# flytekit names a flag twice (`--fresh,--fresh/--no_fresh`), and click says so several times.
warnings.filterwarnings("ignore", "The parameter --fresh is used more than once", UserWarning)
