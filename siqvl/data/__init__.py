"""From published rows to batches: sources -> prepare -> encode -> collate."""
