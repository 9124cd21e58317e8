"""Lines for the live explorer: tables, charts and pictures whose rows can be focused."""
