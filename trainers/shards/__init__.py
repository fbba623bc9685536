"""Training on webdataset shards: an exact order over millions of photos, and what reads them."""
