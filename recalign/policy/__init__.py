"""Policy 0: template reasoners, a small Llama trained on them, and loading of any causal LM."""
