"""The code location `csv_etl`: a CSV drop folder."""
