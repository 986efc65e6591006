"""MLflow: one parent run a pipeline, one child run a stage."""
