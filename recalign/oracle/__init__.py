"""SASRec, the sequential recommender that serves as oracle: model, losses, fit, inference."""
