"""What is put to a model, and what it answers: by writing, or by what it finds likeliest."""
