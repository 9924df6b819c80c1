"""Recipes of MobileNetV2."""
