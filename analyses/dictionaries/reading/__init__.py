"""What latents stand for and do: class space, pictures, effects, steering."""
