"""Training: one stage from rows to a checkpoint, by SFT or DPO, and the states it goes on from."""
