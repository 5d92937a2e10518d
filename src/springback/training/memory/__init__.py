"""Less memory in training: losses in chunks, batches in pieces, a heap without holes."""
