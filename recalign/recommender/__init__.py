"""The recommender that reads reasonings: text encoder, adapter on a frozen SASRec, signal guard."""
