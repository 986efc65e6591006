"""What both trainers share on top of Hugging Face's: planned batches, states, finite steps."""
