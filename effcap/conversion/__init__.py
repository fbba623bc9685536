"""Captioners and backbones from published weights, and from presets of backbones."""
