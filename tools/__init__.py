"""What stands around the model: tokenizer, weight import, pages, command line."""
