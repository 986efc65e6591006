"""Values of published rows: one cell, a value inside another one, and which rows are asked for."""
