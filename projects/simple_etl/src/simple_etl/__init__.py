"""The code location `simple_etl`: an in-code list."""
