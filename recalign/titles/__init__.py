"""Items by their titles: how the LLM is asked for one, and how its answers are read."""
