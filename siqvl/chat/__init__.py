"""A conversation with a checkpoint, in a terminal or as one question of a script."""
