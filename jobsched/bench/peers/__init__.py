"""Ours and others side by side: the same jobs, two workers each, started and measured the same way."""
