"""What is answered: completions as the engine writes them, in the objects of OpenAI's protocol."""
