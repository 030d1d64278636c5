"""The audit: is a score valid? Each test is a function of a scorer and a stream, never of our own classes."""
