"""Descriptions in the metadata of photos: XMP and EXIF, in JPEG, PNG, WebP and TIFF files."""
