"""Converters that read published weights into models, one module per source, strict both ways."""
