"""From quantized tensors to one safe, verified file and back: container, entropy coding, byte budget, bundle, inspection."""
