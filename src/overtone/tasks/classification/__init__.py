"""One label per image."""
