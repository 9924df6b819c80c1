"""Boxes, and with some networks masks, around objects of known classes."""
