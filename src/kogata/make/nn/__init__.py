"""Torch modules: a technique a file."""
