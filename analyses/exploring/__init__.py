"""What an explorer page shows of one picture, computed and packed; `analyses.explorer` makes the page of it."""
