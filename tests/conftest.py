"""What every test sees."""
