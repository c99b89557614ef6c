"""LoRA adapters, as PEFT trains and saves them, merged into the weights of their base model."""
