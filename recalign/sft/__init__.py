"""Supervised fine-tuning: the LLM learns to answer with the next title, on TRL's trainer."""
