"""HTML pages for people to look at. Knows captions and scores, no models."""
