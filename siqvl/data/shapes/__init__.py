"""The generated world: scenes, what is asked about them, and reasoning about several objects."""
