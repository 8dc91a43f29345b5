"""Chosen and rejected: the best and the worst of a user's reasonings."""
