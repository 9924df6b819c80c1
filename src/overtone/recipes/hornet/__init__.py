"""Recipes of HorNet."""
