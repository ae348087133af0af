"""The warehouse as a destination of dlt, one module per engine."""
