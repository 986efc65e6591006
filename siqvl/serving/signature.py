"""What a registered model takes and gives, and an example of it, as MLflow keeps them."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from siqvl.serving.settings import ServingSettings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature


def signature(settings: ServingSettings) -> ModelSignature:
    """Describes inputs and outputs; every column may be left out, as the model says what lacks."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", "image", required=False),
        ColSpec("string", "path", required=False),
        ColSpec("string", "question", required=False),
        # lists: of base64 texts, and of {role, content}; MLflow's own types for them refuse rows
        # without one beside others
        ColSpec(AnyType(), "images", required=False),
        ColSpec(AnyType(), "messages", required=False),
    ]
    params = [
        ParamSpec("max_new_tokens", "long", settings.max_new_tokens),
        ParamSpec("temperature", "double", 0.0),
        ParamSpec("seed", "long", 0),
    ]
    return ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema([ColSpec("string", "answer"), ColSpec("boolean", "finished")]),
        params=ParamSchema(params),
    )


def example() -> pd.DataFrame:
    """Makes a request: a red square, and a question about it."""
    import pandas as pd

    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (16, 16, 48, 48))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    image = base64.b64encode(stream.getvalue()).decode()
    return pd.DataFrame([{"image": image, "question": "what color is the square?"}])
