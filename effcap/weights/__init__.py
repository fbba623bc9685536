"""Converters of published weights, one module per source. May use all of `effcap`."""
