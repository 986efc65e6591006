"""A checkpoint's answers to a whole data set, written to a table."""
