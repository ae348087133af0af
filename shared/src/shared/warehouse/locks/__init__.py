"""Locks: a load locks its dataset, and a run locks the partitions that it replaces.

On the DuckDB file all loads are serialized, because DuckDB has one writing process and dlt reconnects
at every step. On a server the loads of one dataset are serialized, because they share its staging
tables. Runs of different partitions extract and normalize in parallel.
"""
