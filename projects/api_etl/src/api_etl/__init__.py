"""The code location `api_etl`: NASA's near-earth objects."""
