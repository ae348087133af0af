"""What a load replaces, and how its plan decides it."""
