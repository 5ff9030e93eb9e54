"""How good a dictionary is: reconstruction, true factors, stability."""
