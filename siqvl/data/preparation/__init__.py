"""What `siqvl.data.prepare` is made of: checks, pieces of checked rows, their merge, the report."""
