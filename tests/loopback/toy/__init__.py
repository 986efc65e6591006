"""A small project for the cluster's own tests; they copy it and run it as a user would."""
