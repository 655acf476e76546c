"""`kogata serve`: an http process, and an engine process that holds the model, the index and the indexing."""
