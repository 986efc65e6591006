"""What a recipe takes before anything is started: memory, disk, tokens, operations, hours."""
