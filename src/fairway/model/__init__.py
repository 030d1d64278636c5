"""The network: parts with their maths, composed by ``gpt.GPT`` as a ``ModelConfig`` says."""
