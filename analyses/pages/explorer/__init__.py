"""What an explorer page shows of one picture, computed and packed; `analyses.pages.explorer.build` makes the page of it."""
