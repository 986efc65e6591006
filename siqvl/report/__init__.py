"""The page a pipeline ends with: gates, scores, loss curves and pictures in one HTML file."""
