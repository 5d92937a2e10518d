"""Models and tokenizers: found, loaded, made from scratch; rows as token ids."""
