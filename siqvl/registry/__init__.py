"""MLflow's model registry: versions of a model, and who holds which alias."""
