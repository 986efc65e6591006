"""Two tracked runs side by side: their scores question by question, their recipes, their inputs."""
