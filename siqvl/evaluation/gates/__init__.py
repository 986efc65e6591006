"""What a recipe claims about its stages, and what became of it."""
