"""Models as folders that others can use: the aligned LLM, the recommender, the oracle."""
