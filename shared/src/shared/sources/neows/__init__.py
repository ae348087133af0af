"""NASA NeoWs as a dlt source."""
