"""dlt sources: what to extract, and its types. They import neither Dagster nor the warehouse."""
