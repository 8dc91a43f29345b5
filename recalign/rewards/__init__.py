"""The reward of a reasoning: how well the recommender ranks what the user took next."""
