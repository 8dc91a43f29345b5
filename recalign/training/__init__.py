"""Fine-tuning of an LLM on an ordinary Trainer: adapters, batches, checkpoints, early stop."""
