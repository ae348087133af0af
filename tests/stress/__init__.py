"""What must hold whatever runs at once, dies or is fed badly."""
