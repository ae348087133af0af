"""What a load checks and changes in rows: their names and values."""
