"""What the model will see of a source, and what looks wrong in it, before anything is prepared."""
