"""Tables of a database as a dlt source."""
