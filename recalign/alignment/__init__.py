"""Preference optimisation of the policy on TRL's trainer, with pairs that share their prompt."""
