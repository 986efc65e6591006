"""An MLflow server asked over its REST API, by what does not import MLflow."""
