"""Windows of time per user, fixed candidate lists, and the guard that proves nothing leaks."""
