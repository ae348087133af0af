"""Log-based change data capture: the changes of a table since the last load, from Postgres' log."""
