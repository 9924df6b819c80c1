"""Recipes of the Harmonic Networks."""
