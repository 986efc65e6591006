"""What a recipe tells a cluster that no task of ours reads: its pods, and whom it writes to."""
