"""How the server holds up: many clients, broken ones, a kill, pictures of 49 megapixels."""
