"""Layers that two families or heads share."""
