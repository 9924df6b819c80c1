"""Recipes of HBONet."""
