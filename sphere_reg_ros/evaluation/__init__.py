"""How good a registration was: metrics, tables, reports."""
