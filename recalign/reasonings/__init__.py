"""Prompts, sampled reasonings, and what is wrong with a text."""
