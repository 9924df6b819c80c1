"""Recipes for a folder of your own."""
