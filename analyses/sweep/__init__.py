"""What a sweep stands on: exact totals, files that survive a kill, a record of what was run, processes, a bar."""
