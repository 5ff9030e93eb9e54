"""What analyses of key-value memories stand on: coefficients, look-up tables, choices of memories, interventions."""
