"""The connection of Dagster and the load engine: locations, assets, checks, alerts, and a run's load."""
