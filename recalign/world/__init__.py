"""A synthetic world whose users' true preferences are known."""
