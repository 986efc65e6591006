"""Formats of files of rows: each gives unread rows, and says which row or line is damaged."""
