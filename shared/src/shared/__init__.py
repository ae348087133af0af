"""The package every code location stands on.

`sources` extract (pure dlt), `warehouse` knows where data lands, `resources` runs dlt from Dagster,
`translator` names assets, `environment` lists the settings, `testing` serves any team's tests.
"""
