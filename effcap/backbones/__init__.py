"""Vision networks behind one layer: pixels in, features out. May use `effcap.images`; knows no text."""
