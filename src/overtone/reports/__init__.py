"""Plots, tables and pages made of what the engine reports."""
