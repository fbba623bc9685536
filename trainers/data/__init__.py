"""Datasets, readers and loaders: photos here, other sources in packages. May use `options`."""
