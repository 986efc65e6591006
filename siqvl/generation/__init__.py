"""How a model writes: one loop over tokens, greedy or drawn at random."""
