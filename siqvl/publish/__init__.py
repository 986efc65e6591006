"""Taking a checkpoint elsewhere: a Hugging Face repository with a model card, and exports."""
