"""MLflow: a parent run a pipeline, a child run for each data set, stage and evaluation."""
