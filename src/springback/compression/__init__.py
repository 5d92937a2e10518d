"""The language model as a lossless compressor: an arithmetic coder driven by its probabilities.

Any bytes in, the same bytes out.  Text is tokenised, cut into chunks of equal length, and coded by
constriction's range coder with the model's next-token distribution; all chunks of a group take a
step together, in decoding as in coding.  Other bytes are deflated.  docs/compress.md has the format
and its limits.
"""
