"""Artifacts: folders that know what they were computed from, found again by fingerprint."""
