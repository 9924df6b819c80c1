"""From image files to batches: sources, transforms, mixing, loader; the data flows in that order."""
