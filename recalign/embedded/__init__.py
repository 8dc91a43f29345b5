"""Both embedded LLMs: a small Llama taught by template reasoners, and one that names titles."""
