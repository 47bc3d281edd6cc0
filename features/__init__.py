"""Commands of the course's second milestone."""
