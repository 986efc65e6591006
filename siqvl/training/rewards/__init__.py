"""Learning from rewards on TRL's GRPOTrainer, with our scorers, rollouts and states."""
