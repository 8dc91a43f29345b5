"""Next items recommended case by case: ranks, answers, popularity bias, hallucination."""
