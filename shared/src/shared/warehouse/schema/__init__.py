"""The schema that dlt stores: what changes it, and what a table accepts."""
