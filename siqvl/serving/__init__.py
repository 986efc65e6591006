"""The registered model: what a request may hold, how it is answered, what MLflow keeps of it."""
