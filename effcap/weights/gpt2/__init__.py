"""GPT-2 checkpoints of OpenAI and Hugging Face, read into a captioner's decoder."""
