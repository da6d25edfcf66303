"""The demo model: surfaces it is trained on, its training script, its weights and model card."""
