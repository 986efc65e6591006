"""What a run was made with, as files that stay with it: its recipe and what was installed."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from siqvl.recipe import Recipe
    from siqvl.tracking.runs import RunLog

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.txt"


def keep_origin(log: RunLog, recipe: Recipe) -> None:
    """Keep `recipe.yaml` and `environment.txt` among a run's artifacts."""
    log.text(recipe_text(recipe), RECIPE)
    log.text(environment_text(), ENVIRONMENT)


def recipe_text(recipe: Recipe) -> str:
    """A recipe with every key; loading it gives an equal one."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def environment_text() -> str:
    """The machine in comments, then installed packages as pip reads them, in their order."""
    about = [f"python {platform.python_version()}", platform.platform(), *_gpus()]
    return "\n".join([*(f"# {line}" for line in about), *_packages()]) + "\n"


@cache
def _packages() -> list[str]:
    """What is installed; looking takes half a second."""
    installed: dict[str, str] = {}
    for one in distributions():
        if name := one.metadata["Name"]:  # a half removed package has none
            installed.setdefault(name, one.version)  # the first is imported
    return [f"{name}=={installed[name]}" for name in sorted(installed, key=str.lower)]


def _gpus() -> list[str]:
    """The GPUs that torch sees and their driver; nothing where it is not imported anyway.

    A task that only opens a run would wait for torch's import, and finds no GPU.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cuda = f"CUDA {torch.version.cuda}, driver {_driver()}"
    return [f"{names.count(name)} x {name}, {cuda}" for name in dict.fromkeys(names)]


def _driver() -> str:
    """The kernel driver's version, as it tells itself."""
    path = Path("/proc/driver/nvidia/version")
    if not path.is_file():
        return "unknown"
    words = path.read_text(encoding="utf-8").split()
    return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), "unknown")
