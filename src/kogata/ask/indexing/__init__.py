"""What an indexing run does, from the survey of the folders to the last vector."""
