"""A folder in MLflow's model format around a checkpoint: all but the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import siqvl
from siqvl.serving.requirements import requirements
from siqvl.serving.settings import ServingSettings
from siqvl.serving.signature import example, signature

if TYPE_CHECKING:
    from mlflow.models import Model

#: Where the checkpoint has to lie in the model's folder.
WEIGHTS = "artifacts/checkpoint"
#: Goes with the model as a whole: where it is loaded it comes before an installed siqvl, of which a
#: part would hide the rest.
CODE = Path(siqvl.__file__).parent


def write_package(folder: Path, settings: ServingSettings, model: Model) -> None:
    """Write everything but the checkpoint, whose files are to be put to `WEIGHTS`.

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
