"""The page, `freectl ui`: forms of the settings classes, one job at a time, results by session. Thin over `tasks`."""
