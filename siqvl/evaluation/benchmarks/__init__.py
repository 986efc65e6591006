"""A recipe's benchmarks: how they are prepared, read, and guessed at without a picture."""
