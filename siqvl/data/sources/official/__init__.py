"""Data sets as their authors' own files hold them: one adapter a file."""
