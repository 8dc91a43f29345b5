"""Both embedded LLMs: a small Llama taught by rule-based reasoners, and one that names titles."""
