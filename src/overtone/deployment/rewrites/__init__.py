"""Exact rewrites of networks for inference."""
