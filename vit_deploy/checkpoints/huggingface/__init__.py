"""The dialect of Hugging Face transformers."""
