"""Data sets of the Hugging Face hub and Parquet files, as photos with captions."""
