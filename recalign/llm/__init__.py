"""Any causal LM: loading it, and sampling many texts per prompt from it."""
