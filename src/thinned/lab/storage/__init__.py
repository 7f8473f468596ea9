"""Runs on disk, or at a URL."""
