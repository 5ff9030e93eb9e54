"""Dictionaries that other libraries have published."""
