"""What is handed out with a finished run's policy: recommendations, once or on a schedule."""
