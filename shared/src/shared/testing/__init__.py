"""What any team's tests may use: a NeoWs server and, as a pytest plugin, folders of their own."""
