"""Shared helpers of the tests: generated data, tiny captioners and reference implementations."""
