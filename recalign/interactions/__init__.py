"""Ingest: raw files of a publisher, or the user's own, become the interactions, items and users."""
