"""Pure dlt sources: what to extract and its types. They know neither Dagster nor the warehouse."""

REPLACED_TOGETHER = "x-replaced-together"
"""A table hint: names of further tables that the resource loads by the same partition column. A run
replaces its partitions in these as well, so the resource materialises them even without rows."""
