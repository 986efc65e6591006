"""Log-probabilities of pairs under the checkpoint that DPO starts from: computed once, and kept."""
