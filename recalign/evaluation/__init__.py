"""What a policy is worth: metrics per user, paired intervals, and the quality of its texts."""
