"""Any number of labels per image."""
