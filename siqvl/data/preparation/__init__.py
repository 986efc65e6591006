"""Data preparation: checks, pieces of checked rows, their merge, the page about them."""
