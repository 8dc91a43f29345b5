"""Recommendations to take home: exact lists for every user, from whole histories up to now."""
