"""What adapters share: files, tables, pictures and turns as they are published."""
