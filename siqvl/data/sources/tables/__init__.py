"""Any published table, read by what a recipe says of its columns."""
