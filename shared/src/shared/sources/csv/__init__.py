"""CSV files of a folder or a bucket as a dlt source."""
