"""Definitions that `dg scaffold defs` adds; `build_definitions` loads them."""
