"""Vision networks from pixels to feature maps. May use `effcap.images`."""
