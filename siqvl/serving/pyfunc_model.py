"""The registered model as MLflow loads it: models from code, no pickle.

MLflow copies this file into every version, with the siqvl that made it beside, and runs it where
the model is loaded or served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from siqvl.errors import UserError
from siqvl.serving.answering import Answerer, Writing
from siqvl.serving.settings import ServingSettings


class WrongRequest(MlflowException):
    """HTTP 400 with one sentence.

    The scoring server puts the whole request before an exception's message; what it answers is the
    message as it was.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    def serialize_as_json(self) -> str:
        self.message = self.args[0]
        return super().serialize_as_json()


class VisionLanguageModel(PythonModel):
    """Rows with pictures and a question -> rows with `answer` and `finished`."""

    def load_context(self, context: PythonModelContext) -> None:
        settings = ServingSettings.model_validate(context.model_config)
        self._answerer = Answerer.load(Path(context.artifacts["checkpoint"]), settings)

    def predict(  # type: ignore[override]  # MLflow lets `context` be left out
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        settings = self._answerer.settings
        writing = Writing(**{"max_new_tokens": settings.max_new_tokens, **(params or {})})
        try:
            rows = self._answerer.read(model_input.to_dict(orient="records"))
            return pd.DataFrame(self._answerer.answer(rows, writing))
        except UserError as error:
            raise WrongRequest(error.message) from None


set_model(VisionLanguageModel())
