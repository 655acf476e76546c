"""The index file and the segments beside it: one writer, any number of readers."""
