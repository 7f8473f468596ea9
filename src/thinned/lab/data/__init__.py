"""Data to train on: built in, downloaded, or the user's own."""
