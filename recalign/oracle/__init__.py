"""The sequential recommender that serves as oracle (SASRec, GRU4Rec): model, losses, fit, use."""
