"""The parts of a Vision Transformer, each with its hook points; none of them imports the model."""
