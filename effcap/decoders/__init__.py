"""Language decoders and the layers that fuse memory into them. May use `effcap.layers`; knows no images."""
