"""What the model in training answers to a few rows, with no trace in what training comes to."""
