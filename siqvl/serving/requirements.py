"""The packages a registered model needs, pinned as they are installed where it was registered."""

from __future__ import annotations

from importlib.metadata import version

#: What the served part of siqvl imports, and what transformers does for it without requiring it.
PACKAGES = (
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
    """`name==version` of each; named here, so that MLflow loads no model to find out."""
    # a local build such as 2.13.0+cpu is on no index
    return [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]
