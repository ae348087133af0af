"""Postgres: binary COPY into Arrow, in one snapshot."""
