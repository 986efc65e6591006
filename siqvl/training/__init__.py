"""Training: the stage table, the SFT and DPO loops, checkpoints."""
