"""A folder in MLflow's model format around a checkpoint: all but the weights."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import siqvl
from siqvl.serving.settings import ServingSettings
from siqvl.serving.signature import example, signature

if TYPE_CHECKING:
    from mlflow.models import Model

#: Where the checkpoint has to lie in the model's folder.
WEIGHTS = "artifacts/checkpoint"
#: Goes with the model as a whole: where it is loaded it comes before an installed siqvl, of which a
#: part would hide the rest.
CODE = Path(siqvl.__file__).parent
#: What the served part of siqvl imports, and what transformers does for it without requiring it.
REQUIRED = (
    "mlflow",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "jinja2",
    "pillow",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
    "click",
    "tqdm",
)


def requirements() -> list[str]:
    """Names the versions installed here, so that MLflow loads no model to find out."""
    # a local build such as 2.13.0+cpu is on no index
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIRED]


def write_package(folder: Path, settings: ServingSettings, model: Model) -> None:
    """Writes everything but the checkpoint, whose files are to be put to `WEIGHTS`.

    Given as `artifacts`, MLflow would copy the weights to the folder first, for nothing.

    Args:
        folder: is made.
        model: MLflow's description, which knows the run.
    """
    import mlflow.pyfunc
    from mlflow.models.model import MLMODEL_FILE_NAME

    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=str(CODE / "serving" / "pyfunc_model.py"),
        code_paths=[str(CODE)],
        pip_requirements=requirements(),
        signature=signature(settings),
        input_example=example(),
        model_config=settings.model_dump(),
        mlflow_model=model,
    )
    artifact = {"path": WEIGHTS, "uri": WEIGHTS}
    model.flavors[mlflow.pyfunc.FLAVOR_NAME]["artifacts"] = {Path(WEIGHTS).name: artifact}
    model.save(str(folder / MLMODEL_FILE_NAME))
