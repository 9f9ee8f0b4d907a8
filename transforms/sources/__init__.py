"""What an input names."""
