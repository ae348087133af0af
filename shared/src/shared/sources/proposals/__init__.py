"""Propose the source of a file, a folder or an API from what is in it; a person edits the proposal."""
