"""Pure dlt sources: what to extract and its types. They know neither Dagster nor the warehouse."""
