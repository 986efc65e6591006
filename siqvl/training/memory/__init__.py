"""What a batch takes in memory, before anything is trained."""
